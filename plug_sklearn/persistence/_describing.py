"""Fitted estimators → records and tensors."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

import plug_sklearn
from plug_sklearn.persistence._labels import describe_labels
from plug_sklearn.persistence._parameters import describe_parameters, to_plain
from plug_sklearn.persistence._tensors import Arrays

Described = tuple[dict[str, Any], Arrays]


def describe_estimator(estimator: BaseEstimator) -> Described:
    """Describe a fitted estimator, or a pipeline of such.

    Parameters
    ----------
    estimator : BaseEstimator
        To be saved.

    Returns
    -------
    record : dict
        One of those in ``_schema``.
    tensors : dict of ndarray
        By name; those of a pipeline begin with the name of the step.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If it is not fitted.
    ValueError
        If there is no record of its class, or a part of it is no plain value.
    """
    if type(estimator) is not Pipeline:
        return _describe_one(estimator)
    if estimator.transform_input is not None:
        raise ValueError(
            "The 'transform_input' parameter of Pipeline must be None to be saved. Got "
            f"{estimator.transform_input!r} instead."
        )
    steps: list[dict[str, Any]] = []
    tensors: Arrays = {}
    for name, step in estimator.steps:
        record, own = _describe_one(step)
        steps.append({"name": name, "estimator": record})
        tensors |= {f"{name}.{key}": value for key, value in own.items()}
    return {"kind": "Pipeline", "steps": steps}, tensors


def _describe_one(estimator: BaseEstimator) -> Described:
    kind = type(estimator).__name__
    describe = _DESCRIBE.get(kind)
    ours = StandardScaler if kind == "StandardScaler" else None
    if describe is None or type(estimator) is not (ours or getattr(plug_sklearn, kind)):
        raise ValueError(
            f"The 'estimator' given to save_artifacts must be one of "
            f"{sorted(_DESCRIBE)}, or a Pipeline of them. Got {estimator!r} instead: "
            "joblib.dump saves it, as a pickle."
        )
    check_is_fitted(estimator)
    record, tensors = describe(estimator)
    parameters = describe_parameters(estimator)
    # What was learnt follows parameters, which may be numpy scalars.
    return {"kind": kind, "parameters": parameters, **to_plain(record)}, tensors


def _describe_classifier(classifier: Any) -> Described:  # noqa: ANN401 - either
    sizes, weights = classifier._describe_net()
    monitor = classifier.monitor_
    record = {
        "classes": describe_labels(classifier.classes_).model_dump(),
        "input_shape": list(classifier.input_shape_),
        "feature_names": _name_features(classifier),
        "n_epochs": classifier.n_iter_,
        "best_epoch": classifier.best_epoch_,
        "monitor": monitor if isinstance(monitor, str) else None,
        "network": sizes,
    }
    return record, weights


def _describe_cnn(classifier: Any) -> Described:  # noqa: ANN401 - untyped attributes
    record, weights = _describe_classifier(classifier)
    return {**record, "output": _read_output(classifier)}, weights


def _describe_aggregator(aggregator: Any) -> Described:  # noqa: ANN401 - as above
    record = {
        "input_shape": list(aggregator.input_shape_),
        "n_features_in": aggregator.n_features_in_,
        "feature_names": _name_features(aggregator),
        "layers": list(aggregator.layers_),
        "parts": list(aggregator.parts_),
        "output": _read_output(aggregator),
    }
    return record, {}


def _describe_embedder(embedder: Any) -> Described:  # noqa: ANN401 - as above
    record = {
        "layers": list(embedder.layers_),
        "parts": list(embedder.parts_),
        "hidden_size": embedder.hidden_size_,
        "n_model_layers": embedder.n_model_layers_,
        "model_revision": embedder.model_revision_,
        "origin": embedder._find_origin(),
        "stack": embedder._stack,
    }
    turn = embedder._find_turn()
    if turn is not None:
        record["turn"] = asdict(turn)
    return record, {}


def _describe_scaler(scaler: Any) -> Described:  # noqa: ANN401 - as above
    if np.ndim(scaler.n_samples_seen_):
        raise ValueError(
            "The StandardScaler to save must have been fitted on data without missing "
            "values."
        )
    record = {
        "n_features": scaler.n_features_in_,
        "n_samples_seen": int(scaler.n_samples_seen_),
        "feature_names": _name_features(scaler),
        "output": _read_output(scaler),
    }
    learnt = {"mean": scaler.mean_, "var": scaler.var_, "scale": scaler.scale_}
    tensors = {
        name: np.asarray(value, dtype=np.float64)
        for name, value in learnt.items()
        if value is not None
    }
    return record, tensors


def _name_features(estimator: BaseEstimator) -> list[str] | None:
    names = getattr(estimator, "feature_names_in_", None)
    return None if names is None else [str(name) for name in names]


def _read_output(estimator: BaseEstimator) -> str | None:
    output: str | None = getattr(estimator, "_sklearn_output_config", {}).get(
        "transform"
    )
    return output


_DESCRIBE: dict[str, Callable[[Any], Described]] = {
    "HFEmbeddingTransformer": _describe_embedder,
    "LayerAggregator": _describe_aggregator,
    "PlugCNNClassifier": _describe_cnn,
    "PlugMLPClassifier": _describe_classifier,
    "StandardScaler": _describe_scaler,
}
