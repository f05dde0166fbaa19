"""Measure how well classifiers tell true statements from false ones.

A piece is one classifier in one setting: a data set, a layer, a number of rows and a
seed. Its scores on three folds are kept in a file, so that what is cut off goes on
where it was.
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedKFold,
    StratifiedShuffleSplit,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from plug_sklearn import PlugCNNClassifier, PlugMLPClassifier

#: Data set → file of the data folder.
DATA = {
    "cities": "cities",
    "companies": "companies_true_false",
    "translations": "sp_en_trans",
    "claims": "common_claim_true_false",
}
LAYERS = (13, 20)
NUMBERS = (100, 400, 1000, None)
SEEDS = (0, 1, 2)
#: Of the CNN's table, which has few settings and small differences.
CNN_SEEDS = tuple(range(10))
N_FOLDS = 3
C_GRID = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]


@dataclass(frozen=True)
class Setting:
    """What is classified.

    Attributes
    ----------
    data : str
        A data set.
    layer : int or None
        Its layer; None: all of them.
    n_rows : int or None
        Rows drawn from it, of each class alike; None: all of them.
    seed : int
        Decides rows, folds and fits.
    """

    data: str
    layer: int | None
    n_rows: int | None
    seed: int


class PickLayer(TransformerMixin, BaseEstimator):
    """Activations (n, layers, hidden) → one layer."""

    def __init__(self, layer: int = 0) -> None:
        self.layer = layer

    def fit(self, X: NDArray[np.float32], y: object = None) -> "PickLayer":
        """Learn nothing."""
        return self

    def transform(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take the layer."""
        return X[:, self.layer]

    def __sklearn_is_fitted__(self) -> bool:
        return True


def tune_regression(seed: int) -> GridSearchCV:
    """Logistic regression whose ``C`` is chosen by the log loss on inner folds."""
    return GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, tol=1e-3)),
        {"logisticregression__C": C_GRID},
        scoring="neg_log_loss",
        cv=StratifiedKFold(5, shuffle=True, random_state=seed),
    )


def tune_layer(seed: int) -> GridSearchCV:
    """Logistic regression whose layer and ``C`` are chosen by the ROC-AUC."""
    return GridSearchCV(
        make_pipeline(
            PickLayer(),
            StandardScaler(),
            LogisticRegression(max_iter=500, tol=1e-3),
        ),
        {"picklayer__layer": range(30), "logisticregression__C": C_GRID[:4]},
        scoring="roc_auc",
        cv=StratifiedKFold(3, shuffle=True, random_state=seed),
    )


def make_mlp(**parameters: object) -> Callable[[int], PlugMLPClassifier]:
    """Make an MLP from a seed."""
    return lambda seed: PlugMLPClassifier(random_state=seed, device="cpu", **parameters)


def make_cnn(**parameters: object) -> Callable[[int], PlugCNNClassifier]:
    """Make a CNN from a seed."""
    return lambda seed: PlugCNNClassifier(random_state=seed, device="cpu", **parameters)


@cache
def load_activations(folder: Path, data: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Load the activations (n, layers, hidden) and labels of a data set."""
    activations = np.load(folder / f"{DATA[data]}.npy", mmap_mode="r")
    return activations[:, :, 0], np.load(folder / f"{DATA[data]}_y.npy")


def draw_rows(folder: Path, setting: Setting) -> tuple[NDArray[Any], NDArray[Any]]:
    """Draw the rows of a setting."""
    activations, y = load_activations(folder, setting.data)
    chosen = np.arange(len(y))
    if setting.n_rows is not None:
        draw = StratifiedShuffleSplit(
            1, train_size=setting.n_rows, random_state=setting.seed
        )
        chosen, _ = next(draw.split(chosen, y))
    rows = activations[chosen]
    if setting.layer is not None:
        rows = rows[:, setting.layer]
    return np.ascontiguousarray(rows), y[chosen]


def list_settings(folder: Path, layers: tuple[int | None, ...]) -> Iterator[Setting]:
    """List the settings of the table, small ones first."""
    for n_rows in NUMBERS:
        for data in DATA:
            if n_rows is not None and n_rows >= len(load_activations(folder, data)[1]):
                continue
            for layer in layers:
                for seed in SEEDS:
                    yield Setting(data, layer, n_rows, seed)


def score_piece(
    folder: Path, name: str, make: Callable[[int], Any], setting: Setting
) -> list[list[float]]:
    """Score a classifier on the folds of a setting, unless that is kept.

    Returns
    -------
    list of list of float
        By fold: ROC-AUC, log loss, and seconds to fit.
    """
    kept = load_piece(folder, name, setting)
    if kept is not None:
        return kept
    X, y = draw_rows(folder, setting)
    scores = []
    for train, test in split_rows(y, setting.seed):
        start = perf_counter()
        classifier = make(setting.seed).fit(X[train], y[train])
        seconds = perf_counter() - start
        probabilities = classifier.predict_proba(X[test])[:, 1]
        scores.append([*score(y[test], probabilities), seconds])
    return keep_piece(name_piece(folder, name, setting), scores)


def score_pingkit(
    folder: Path, python: str, settings: list[Setting], seconds: float
) -> None:
    """Score pingkit's MLP likewise, all settings in one process of its environment.

    Stops after about so many seconds.
    """
    exchange = folder / "exchange"
    exchange.mkdir(exist_ok=True)
    waiting = {}
    for setting in settings:
        path = name_piece(folder, "pingkit", setting)
        if path.exists():
            continue
        X, y = draw_rows(folder, setting)
        fold_of = np.zeros(len(y), dtype=int)
        for number, (_, test) in enumerate(split_rows(y, setting.seed)):
            fold_of[test] = number
        rows = exchange / f"{path.stem}.npz"
        np.savez(rows, X=X, y=y, fold_of=fold_of)
        waiting[path] = rows, y, fold_of
    script = Path(__file__).with_name("peers_classifiers.py")
    command = [python, str(script), "quality", str(exchange), str(seconds)]
    if waiting:
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    for path, (rows, y, fold_of) in waiting.items():
        answer = rows.with_suffix(".npy")
        rows.unlink()
        if answer.exists():
            *probabilities, took = np.load(answer)
            answer.unlink()
            scores = [
                [*score(y[test], np.array(probabilities)[test]), took / N_FOLDS]
                for test in (fold_of == fold for fold in range(N_FOLDS))
            ]
            keep_piece(path, scores)


def split_rows(
    y: NDArray[Any], seed: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Split rows into folds, (training, test)."""
    folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=seed)
    return folds.split(np.zeros(len(y)), y)


def score(y: NDArray[Any], probabilities: NDArray[Any]) -> tuple[float, float]:
    """Compute the ROC-AUC and the log loss."""
    bounded = probabilities.clip(1e-7, 1 - 1e-7).astype(float)
    return roc_auc_score(y, probabilities), log_loss(y, bounded)


def name_piece(folder: Path, name: str, setting: Setting) -> Path:
    """Name the file of a piece."""
    return folder / name / ("-".join(str(part) for part in astuple(setting)) + ".json")


def load_piece(folder: Path, name: str, setting: Setting) -> list[list[float]] | None:
    """Load the scores of a piece, if they are kept."""
    path = name_piece(folder, name, setting)
    return json.loads(path.read_text()) if path.exists() else None


def keep_piece(path: Path, scores: list[list[float]]) -> list[list[float]]:
    """Write a piece's file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(scores))
    draft.rename(path)
    return scores
