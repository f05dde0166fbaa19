"""Errors about rows of X and y, with the positions of these rows."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd

from plug_sklearn.embedding._parameters import OWNER
from plug_sklearn.embedding.passes import NonFiniteStatesError
from plug_sklearn.embedding.prompts import MOST_LISTED, RefusedTextError, Text


def refuse_missing_labels(y: Any) -> None:  # noqa: ANN401 - labels of any kind
    """Raise a ValueError if a label is None or NaN."""
    labels = y.to_numpy() if hasattr(y, "to_numpy") else y
    if isinstance(labels, np.ndarray) and labels.dtype.kind not in "fO":
        return
    missing = np.flatnonzero(pd.Series(list(labels), dtype=object).isna()).tolist()
    if missing:
        raise ValueError(
            f"The 'y' given to {OWNER} must have a label for each text. Got "
            f"{len(missing)} missing, at positions {_list_positions(missing)}."
        )


@contextmanager
def naming_positions(
    texts: Sequence[Text], first_rows: Mapping[Any, int]
) -> Iterator[None]:
    """Add the positions in X to errors about texts."""
    try:
        yield
    except RefusedTextError as error:
        raise error.at(first_rows[error.text]) from None
    except NonFiniteStatesError as error:
        found = set(error.texts)
        positions = [row for row, text in enumerate(texts) if text in found]
        raise FloatingPointError(
            f"The states of {error.states} contain infinity or NaN for at least "
            f"{len(positions)} of {len(texts)} texts, at positions "
            f"{_list_positions(positions)}. The first of them is "
            f"{texts[positions[0]]!r}. Use dtype='bfloat16' or 'float32' in {OWNER}."
        ) from None


def _list_positions(positions: Sequence[int]) -> str:
    listed = ", ".join(map(str, positions[:MOST_LISTED]))
    return f"[{listed}{', ...' if len(positions) > MOST_LISTED else ''}]"
