"""Compare settings of ``PlugTokenClassifier``, from which its defaults were chosen.

``python token_sweep.py CACHE`` reads the activations that ``token_probes.py`` has kept
in CACHE. It prints ROC-AUC and log loss for each setting, number of sentences that it
was trained on, set and number of sentences that it was tested on. The whole sweep is
long; ``--settings``, ``--trained``, ``--texts`` and ``--seeds`` reduce it.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import torch
from token_probes import FILES, score_tokens_of

from plug_sklearn.classifiers import _token_batches, _token_training

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
    "patience 10": ({"patience": 10}, {}),
    "patience 60": ({"patience": 60}, {}),
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


def main(options: argparse.Namespace) -> None:
    """Score the settings on all sets, and print each one's scores when it is done."""
    torch.set_num_threads(1)
    for setting in options.settings:
        parameters, constants = SETTINGS[setting]
        rows = []
        for trained in options.trained:
            # What the documentation recommends for texts longer than those of fit.
            given = {"linear_path": trained == 9} | parameters
            for name in FILES:
                with replacing(constants):
                    found = list(
                        score_tokens_of(
                            options.cache,
                            name,
                            trained,
                            options.seeds,
                            options.texts,
                            **given,
                        )
                    )
                about = {"setting": setting, "trained": trained, "set": name}
                rows += [about | scores for scores in found]
        table = pd.DataFrame(rows)
        mean = table.groupby(["setting", "trained", "tested"])[["auc", "loss"]].mean()
        print(table.round(4).to_markdown(index=False))
        print(mean.round(4).to_string(), flush=True)


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cache", type=Path, help="folder of token_probes.py")
    parser.add_argument(
        "--settings", nargs="+", choices=SETTINGS, default=[*SETTINGS], metavar="NAME"
    )
    parser.add_argument(
        "--trained", nargs="+", type=int, choices=(1, 9), default=(1, 9)
    )
    parser.add_argument("--texts", type=int, help="texts to train on, default: all")
    parser.add_argument("--seeds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main(read_options())
