"""Compare settings of ``PlugTokenClassifier``, from which its defaults were chosen.

``python token_sweep.py CACHE [N_TEXTS]`` reads the activations that ``token_probes.py``
has kept in CACHE, trains on N_TEXTS texts of each set (all by default), and prints
ROC-AUC and log loss for each setting, number of sentences that it was trained on, set
and number of sentences that it was tested on.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import torch
from token_probes import FILES, score_tokens_of

from plug_sklearn.classifiers import _token_batches, _token_training

N_SEEDS = 3
#: Settings: parameters, and constants of modules.
SETTINGS: dict[str, tuple[dict[str, Any], dict[tuple[ModuleType, str], float]]] = {
    "defaults": ({}, {}),
    "norms not limited": ({}, {(_token_batches, "NORM_FACTOR"): 1e9}),
    "norms limited to 1.2 x median": ({}, {(_token_batches, "NORM_FACTOR"): 1.2}),
    "norms limited to 3 x median": ({}, {(_token_batches, "NORM_FACTOR"): 3.0}),
    "32 texts in each batch": ({}, {(_token_training, "LEAST_TEXTS"): 32}),
    "one head": ({"head_cap": 1}, {}),
    "lr 0.1": ({"lr": 0.1}, {}),
    "lr 0.4": ({"lr": 0.4}, {}),
    "patience 25": ({"patience": 25}, {}),
    "input_dropout 0.4": ({"input_dropout": 0.4}, {}),
    "weight_decay 0.01": ({"weight_decay": 0.01}, {}),
    "rolling": ({"aggregation": "rolling"}, {}),
    "max": ({"aggregation": "max"}, {}),
}


@contextmanager
def replacing(constants: dict[tuple[ModuleType, str], float]) -> Iterator[None]:
    """Give constants of modules other values."""
    before = {place: getattr(*place) for place in constants}
    for (module, name), value in constants.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name), value in before.items():
            setattr(module, name, value)


def main(cache: Path, n_texts: int | None) -> None:
    """Score all settings on all sets, trained on one sentence and on nine."""
    torch.set_num_threads(1)
    rows = []
    for setting, (parameters, constants) in SETTINGS.items():
        for trained in (1, 9):
            # What the documentation recommends for texts longer than those of fit.
            parameters = parameters | {"linear_path": trained == 9}
            for name in FILES:
                with replacing(constants):
                    found = list(
                        score_tokens_of(
                            cache, name, trained, N_SEEDS, n_texts, **parameters
                        )
                    )
                about = {"setting": setting, "trained": trained, "set": name}
                rows += [about | scores for scores in found]
        table = pd.DataFrame(rows)
        mean = table.groupby(["setting", "trained", "tested"])[["auc", "loss"]].mean()
        print(mean.round(4).to_string(), flush=True)
    print(table.round(4).to_markdown(index=False))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)
