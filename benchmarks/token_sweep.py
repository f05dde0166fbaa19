"""Compare settings of ``PlugTokenClassifier``, from which its defaults were chosen.

``python token_sweep.py CACHE`` reads the activations that ``token_probes.py`` has kept
in CACHE, and prints ROC-AUC and log loss for each setting, number of sentences that it
was trained on, set and number of sentences that it was tested on.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from token_probes import FILES, score_tokens_of

from plug_sklearn.classifiers import _token_batches

N_SEEDS = 3
#: Settings, and the multiple of the median norm to which norms of tokens are limited.
SETTINGS: dict[str, tuple[dict[str, Any], float]] = {
    "defaults": ({}, 2.0),
    "norms not limited": ({}, 1e9),
    "norms limited to 1.2 x median": ({}, 1.2),
    "norms limited to 3 x median": ({}, 3.0),
    "one head": ({"head_cap": 1}, 2.0),
    "lr 0.2": ({"lr": 0.2}, 2.0),
    "lr 1.5": ({"lr": 1.5}, 2.0),
    "input_dropout 0.5": ({"input_dropout": 0.5}, 2.0),
    "weight_decay 0.01": ({"weight_decay": 0.01}, 2.0),
    "rolling": ({"aggregation": "rolling"}, 2.0),
    "max": ({"aggregation": "max"}, 2.0),
}


@contextmanager
def limiting_norms(factor: float) -> Iterator[None]:
    """Limit the norms of tokens to another multiple of their median."""
    before = _token_batches.NORM_FACTOR
    _token_batches.NORM_FACTOR = factor
    try:
        yield
    finally:
        _token_batches.NORM_FACTOR = before


def main(cache: Path) -> None:
    """Score all settings on all sets, trained on one sentence and on nine."""
    torch.set_num_threads(1)
    rows = []
    for setting, (parameters, factor) in SETTINGS.items():
        for trained in (1, 9):
            # What the documentation recommends for texts longer than those of fit.
            parameters = parameters | {"linear_path": trained == 9}
            for name in FILES:
                with limiting_norms(factor):
                    found = list(
                        score_tokens_of(cache, name, trained, N_SEEDS, **parameters)
                    )
                about = {"setting": setting, "trained": trained, "set": name}
                rows += [about | scores for scores in found]
        table = pd.DataFrame(rows)
        mean = table.groupby(["setting", "trained", "tested"])[["auc", "loss"]].mean()
        print(mean.round(4).to_string(), flush=True)
    print(table.round(4).to_markdown(index=False))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
