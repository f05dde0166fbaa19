"""Compare a layer sweep at once with one layer after another, as JSON.

``python classifier_sweep.py PIECES`` is run by ``bench_classifiers.py``, which has put
the activations into the folder of pieces.
"""

import json
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import pandas as pd
from numpy.testing import assert_allclose

from plug_sklearn import PlugMLPClassifier, layer_sweep

N_ROWS, N_FOLDS, LAYER_STEP = 800, 5, 3
N_REPEATS = 3
SCORING = ["roc_auc", "neg_log_loss"]


class AloneClassifier(PlugMLPClassifier):
    """The same probe; of another class, it is fitted to one layer at a time."""


def time_sweep(estimator: PlugMLPClassifier, pieces: Path) -> pd.DataFrame:
    """Sweep every third layer, and give the scores and seconds."""
    activations = np.load(pieces / "cities.npy", mmap_mode="r")
    labels = np.load(pieces / "cities_y.npy")
    rows = np.random.default_rng(0).permutation(len(labels))[:N_ROWS]
    X = np.ascontiguousarray(activations[rows, ::LAYER_STEP])
    start = perf_counter()
    sweep = layer_sweep(estimator, X, labels[rows], cv=N_FOLDS, scoring=SCORING)
    return sweep.assign(seconds=perf_counter() - start)


def main(pieces: Path) -> None:
    """Time both ways, check that they score the same, and print it."""
    # The first fit of a process pays for what torch sets up.
    PlugMLPClassifier(max_epochs=1).fit(np.eye(40), np.arange(40) % 2)
    probe = {"random_state": 0, "device": "cpu"}
    # By turns, since a machine that others use is faster at one time than at another.
    runs = [
        (
            time_sweep(PlugMLPClassifier(**probe), pieces),
            time_sweep(AloneClassifier(**probe), pieces),
        )
        for _ in range(N_REPEATS)
    ]
    at_once, alone = runs[0]
    for name in SCORING:
        assert_allclose(at_once[name], alone[name], atol=1e-4)
    difference = (at_once[SCORING] - alone[SCORING]).abs().to_numpy().max()
    found = {
        "fits": len(alone),
        "layer after layer": median(alone["seconds"][0] for _, alone in runs),
        "at once": median(at_once["seconds"][0] for at_once, _ in runs),
        "difference of scores": difference,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
