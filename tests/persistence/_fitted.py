"""Small fitted estimators, and files of theirs that can be changed."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from plug_sklearn import (
    LayerAggregator,
    PlugCNNClassifier,
    PlugMLPClassifier,
    PlugStackClassifier,
    PlugTokenClassifier,
)

RNG = np.random.default_rng(0)
Y = np.array(["false", "true"])[np.arange(60) % 2]
X = RNG.normal(size=(60, 3, 2, 4)).astype(np.float32)
X[:, 1, 0] += (Y == "true")[:, None]

QUICK: dict[str, Any] = {
    "max_epochs": 2,
    "n_members": 2,
    "random_state": 0,
    "device": "cpu",
}


def fit_mlp(y: NDArray[Any] = Y, **parameters: object) -> PlugMLPClassifier:
    """Fit an MLP on 60 samples of 24 units."""
    return PlugMLPClassifier(**QUICK | parameters).fit(X, y)


def fit_cnn(**parameters: object) -> PlugCNNClassifier:
    """Fit a CNN on the same."""
    return PlugCNNClassifier(**QUICK | parameters).fit(X, Y)


def fit_stack(y: NDArray[Any] = Y, **parameters: object) -> PlugStackClassifier:
    """Fit a join of linear probes on the same."""
    return PlugStackClassifier(**{"random_state": 0} | parameters).fit(X, y)


def fit_token(**parameters: object) -> PlugTokenClassifier:
    """Fit a classifier of tokens on texts of two tokens."""
    tokens = X.reshape(len(X), 2, -1)
    return PlugTokenClassifier(**{**QUICK, **parameters}).fit(tokens, Y)


def fit_pipeline() -> Pipeline:
    """Fit an aggregator, a scaler and an MLP."""
    steps = LayerAggregator([0, -1]), StandardScaler(), PlugMLPClassifier(**QUICK)
    return make_pipeline(*steps).fit(X, Y)


def fit_linear() -> CalibratedClassifierCV:
    """Fit a calibrated pipeline of components and a linear probe."""
    steps = LayerAggregator(), MinMaxScaler(), PCA(3), LogisticRegression()
    return CalibratedClassifierCV(make_pipeline(*steps), cv=2, method="isotonic").fit(
        X, Y
    )


def rewrite(
    path: Path,
    *,
    description: dict[str, Any] | None = None,
    tensors: dict[str, NDArray[Any]] | None = None,
) -> None:
    """Write other JSON or tensors to an artifact, with a checksum that fits."""
    json_path, tensors_path = (
        path.with_suffix(".json"),
        path.with_suffix(".safetensors"),
    )
    found = description or json.loads(json_path.read_text())
    if tensors is not None:
        safetensors.numpy.save_file(tensors, tensors_path)
        found["sha256"] = hashlib.sha256(tensors_path.read_bytes()).hexdigest()
    json_path.write_text(json.dumps(found))
