"""Parameters may be numpy values, as after a search over a grid of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _fitted import QUICK, X, Y, fit_cnn, fit_mlp, fit_stack
from sklearn.base import BaseEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from plug_sklearn import (
    HFEmbeddingTransformer,
    LayerAggregator,
    PlugMLPClassifier,
    load_artifacts,
    save_artifacts,
)

# Floats are sums of powers of two, so that float32 holds them too.
TRAINING: dict[str, Any] = {
    "max_epochs": 2,
    "n_members": 3,
    "batch_size": 16,
    "patience": 4,
    "width_cap": 32,
    "target_ratio": 64.0,
    "lr": 0.0078125,
    "weight_decay": 0.125,
    "linear_lr": 0.25,
    "linear_decay": 0.0078125,
    "dropout": 0.25,
    "input_dropout": 0.125,
    "min_delta": 0.0078125,
    "validation_fraction": 0.25,
    "calibrate": False,
    "linear_path": True,
    "early_stopping": True,
    "monitor": "loss",
    "sizing": "heuristic",
    "random_state": 1,
    "class_weight": {"false": 2.0, "true": 0.5},
}
CNN: dict[str, Any] = {
    "conv_over": "units",
    "n_layers": 3,
    "n_parts": 2,
    "proj_mult": 3,
    "contrastive_weight": 0.5,
    "temperature": 0.25,
}
EMBEDDER: dict[str, Any] = {
    "layers": [0, -1],
    "parts": ["rs", "mlp"],
    "pooling": "mean",
    "token_filter": "special",
    "prompt_template": "Is it true? {text}",
    "special_tokens": "literal",
    "max_length": 12,
    "truncation_side": "right",
    "batch_tokens": 64,
    "chat_template": False,
    "trust_remote_code": False,
    "dtype": "float32",
    "device": "cpu",
    "attn_implementation": "eager",
    "model_kwargs": {"use_safetensors": True},
}
TEXTS = ["Paris is in France.", "Gold is a gas."]


def fit_aggregator(**parameters: object) -> LayerAggregator:
    return LayerAggregator(**parameters).fit(X)


def fit_scaler(**parameters: object) -> StandardScaler:
    return StandardScaler(**parameters).fit(X.reshape(60, -1))


#: What fits an estimator, and parameters of each kind that it takes.
CASES: dict[str, tuple[Callable[..., BaseEstimator], dict[str, Any]]] = {
    "MLP": (fit_mlp, TRAINING | {"out_floor": 8}),
    "MLP within a budget": (fit_mlp, TRAINING | {"sizing": "budget"}),
    "CNN": (fit_cnn, TRAINING | CNN),
    "CNN along depth": (fit_cnn, TRAINING | CNN | {"conv_over": "layers"}),
    "stack": (fit_stack, {"Cs": [0.5, 2.0], "n_folds": 3, "n_repeats": 2}),
    "one layer": (fit_aggregator, {"layers": 2, "parts": 1, "method": "mean"}),
    "layers": (fit_aggregator, {"layers": [0, -1], "parts": [1], "method": "stack"}),
    "parts by name": (
        lambda **parameters: LayerAggregator(**parameters).fit(np.zeros((2, 2, 3, 4))),
        {"layers": "all", "parts": ["rs", "mlp"], "method": "concat"},
    ),
    "scaler": (fit_scaler, {"with_mean": False, "with_std": True, "copy": True}),
    "scaler of means": (fit_scaler, {"with_mean": True, "with_std": False}),
}


def to_numpy(value: object, number: type[np.integer[Any]], real: type[Any]) -> object:
    """Give a value as it comes out of an array."""
    if isinstance(value, dict):
        return {np.str_(k): to_numpy(item, number, real) for k, item in value.items()}
    if isinstance(value, list):
        return np.array(value)
    kinds: dict[type, type] = {bool: np.bool_, int: number, float: real, str: np.str_}
    return kinds[type(value)](value)


def read_files(estimator: BaseEstimator, path: Path) -> list[bytes]:
    return [file.read_bytes() for file in save_artifacts(estimator, path)]


@pytest.mark.parametrize(
    ("number", "real"),
    [(np.int64, np.float64), (np.int32, np.float32)],
)
@pytest.mark.parametrize("name", CASES)
def test_files_are_those_of_python_values(
    name: str, number: type[np.integer[Any]], real: type[Any], tmp_path: Path
) -> None:
    fit, parameters = CASES[name]
    given = {key: to_numpy(value, number, real) for key, value in parameters.items()}
    expected = read_files(fit(**parameters), tmp_path / "python")
    assert read_files(fit(**given), tmp_path / "numpy") == expected


def test_files_of_an_embedder_are_those_of_python_values(
    llama: str, tmp_path: Path
) -> None:
    given = {key: to_numpy(value, np.int64, float) for key, value in EMBEDDER.items()}
    expected = read_files(
        HFEmbeddingTransformer(llama, **EMBEDDER).fit(TEXTS), tmp_path / "python"
    )
    for model_name in (np.str_(llama), Path(llama)):
        fitted = HFEmbeddingTransformer(model_name, **given).fit(TEXTS)
        assert read_files(fitted, tmp_path / "numpy") == expected


def test_winner_of_a_search_over_numpy_grids_is_saved(tmp_path: Path) -> None:
    pipe = make_pipeline(
        LayerAggregator(), StandardScaler(), PlugMLPClassifier(**QUICK)
    )
    grid = {
        "layeraggregator__layers": np.arange(3),
        "standardscaler__with_mean": np.array([False]),
        "plugmlpclassifier__n_members": np.arange(2, 3),
        "plugmlpclassifier__dropout": np.linspace(0, 0.5, 2),
        "plugmlpclassifier__linear_path": np.array([True]),
        "plugmlpclassifier__sizing": np.array(["budget"]),
    }
    best = GridSearchCV(pipe, grid, cv=2, scoring="roc_auc").fit(X, Y).best_estimator_
    save_artifacts(best, tmp_path / "probe")
    loaded = load_artifacts(tmp_path / "probe")
    np.testing.assert_array_equal(loaded.predict_proba(X), best.predict_proba(X))
    for name, value in loaded.get_params(deep=True).items():
        assert type(value).__module__ != "numpy", name
