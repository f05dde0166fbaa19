"""Run pingkit for ``bench_classifiers.py``, in an environment of its own.

``python peers_classifiers.py speed SETTINGS`` prints seconds of training;
``python peers_classifiers.py quality FOLDER SECONDS`` reads folds from npz files and
writes the probabilities of its MLP beside them.
"""

import json
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from pingkit import model


def time_training(
    n_rows: int, n_features: int, n_epochs: int, batch_size: int
) -> float:
    """Train on rows drawn as ``classifier_speed.py`` draws them."""
    generator = np.random.default_rng(0)
    X = generator.normal(size=(n_rows, n_features)).astype(np.float32)
    y = (X[:, 0] + generator.normal(size=n_rows) > 0).astype(int)
    seconds = []
    for _ in range(3):
        start = perf_counter()
        model.fit(
            X,
            y,
            n_epochs=n_epochs,
            batch_size=batch_size,
            val_split=0.2,
            early_stopping=False,
            device="cpu",
        )
        seconds.append(perf_counter() - start)
    return median(seconds)


def predict_folds(path: Path) -> None:
    """Fit on the training rows of each fold, as it comes, and predict the others.

    Writes the probabilities, and then the seconds of all fits.
    """
    with np.load(path) as arrays:
        X, y, fold_of = arrays["X"], arrays["y"], arrays["fold_of"]
    probabilities, seconds = np.zeros(len(y)), 0.0
    for fold in range(fold_of.max() + 1):
        train, test = fold_of != fold, fold_of == fold
        torch.manual_seed(int(fold))
        start = perf_counter()
        probe, _ = model.fit(X[train], y[train], val_split=0.2, device="cpu")
        seconds += perf_counter() - start
        with torch.inference_mode():
            logits = probe(torch.from_numpy(X[test]))
        probabilities[test] = logits.softmax(1)[:, 1].numpy()
    np.save(path.with_suffix(".npy"), [*probabilities, seconds])


def main(task: str, given: str, most_seconds: str = "inf") -> None:
    """Do a task."""
    if task == "speed":
        print(json.dumps(time_training(**json.loads(given))))
        return
    start = perf_counter()
    for path in sorted(Path(given).glob("*.npz")):
        if perf_counter() - start < float(most_seconds):
            predict_folds(path)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
