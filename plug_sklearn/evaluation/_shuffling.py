"""Labels shuffled so that they are as easy to memorise as the true ones."""

from collections.abc import Hashable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state


def shuffle_labels(
    y: NDArray[np.generic],
    *,
    items: Sequence[Hashable] | None = None,
    groups: ArrayLike | None = None,
    random_state: int | np.random.RandomState | None = None,
) -> NDArray[np.generic]:
    """Shuffle labels between rows that could have each other's label.

    Equal items of one group that share a label still share one afterwards, so that a
    probe that memorises items gains as much as with the true labels. Labels are
    shuffled within groups. Groups with a single label exchange it with other such
    groups.
    """
    rng = check_random_state(random_state)
    rows = np.arange(len(y))
    item_codes = rows if items is None else pd.factorize(pd.Series(list(items)))[0]
    group_codes = (
        np.zeros(len(y), dtype=np.intp)
        if groups is None
        else pd.factorize(np.asarray(groups))[0]
    )
    table = pd.DataFrame({"group": group_codes, "item": item_codes, "row": rows})
    table["label"] = pd.factorize(y)[0]
    by_group = table.groupby("group")["label"]
    is_pure = (by_group.transform("nunique") == 1).to_numpy()
    # Rows of one unit share a label. Items with several labels are units by row.
    by_item = table.groupby(["group", "item"])
    is_ambiguous = (by_item["label"].transform("nunique") > 1).to_numpy()
    first = by_item["row"].transform("first").to_numpy()
    unit = np.where(is_ambiguous, rows, first)
    unit[is_pure] = by_group.transform("idxmin").to_numpy()[is_pure]
    # Units of a stratum exchange their labels.
    stratum = np.where(is_pure, -1, group_codes)
    shuffled = y.copy()
    for number in np.unique(stratum):
        units = np.unique(unit[stratum == number])
        drawn = y.copy()
        drawn[units] = y[rng.permutation(units)]
        members = stratum == number
        shuffled[members] = drawn[unit[members]]
    return shuffled
