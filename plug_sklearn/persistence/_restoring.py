"""Records and tensors → fitted estimators."""

from collections.abc import Callable, Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

import plug_sklearn
from plug_sklearn.classifiers._cnn_network import CNNNetwork
from plug_sklearn.classifiers._networks import MLPNetwork
from plug_sklearn.embedding.models import require_safetensors
from plug_sklearn.persistence._labels import read_labels
from plug_sklearn.persistence._parameters import read_parameters
from plug_sklearn.persistence._schema import (
    AggregatorRecord,
    CNNRecord,
    EmbedderRecord,
    EstimatorRecord,
    MLPRecord,
    MLPSizes,
    PipelineRecord,
    ScalerRecord,
)
from plug_sklearn.persistence._tensors import Arrays, Expected

_NETWORKS: dict[str, type[nn.Module]] = {
    "PlugMLPClassifier": MLPNetwork,
    "PlugCNNClassifier": CNNNetwork,
}


def expect_tensors(record: EstimatorRecord | PipelineRecord) -> dict[str, Expected]:
    """List the tensors that a record needs, without allocating any.

    Parameters
    ----------
    record : Record
        Validated.

    Returns
    -------
    dict of Expected
        By name.

    Raises
    ------
    ValueError
        If no memory could hold them, or two steps give them the same names.
    """
    if isinstance(record, MLPRecord | CNNRecord):
        return expect_weights(_NETWORKS[record.kind], record.network.model_dump())
    if isinstance(record, ScalerRecord):
        of = {"mean": record.n_features}
        if record.parameters.get("with_std"):
            of |= {"var": record.n_features, "scale": record.n_features}
        elif not record.parameters.get("with_mean"):
            of = {}
        return {name: Expected((size,), "float64") for name, size in of.items()}
    if isinstance(record, PipelineRecord):
        expected = [
            (f"{step.name}.{name}", tensor)
            for step in record.steps
            for name, tensor in expect_tensors(step.estimator).items()
        ]
        if len(dict(expected)) < len(expected):
            raise ValueError("its steps have tensors of the same names")
        return dict(expected)
    return {}


def expect_weights(
    network: type[nn.Module], sizes: Mapping[str, object]
) -> dict[str, Expected]:
    """List the weights of a network of some sizes, without allocating any."""
    try:
        with torch.device("meta"):
            skeleton = network(**sizes)
    except (RuntimeError, OverflowError) as error:
        raise ValueError(f"its network is too large ({error})") from None
    return {
        name: Expected(tuple(value.shape), str(value.dtype).removeprefix("torch."))
        for name, value in skeleton.state_dict().items()
    }


def restore_estimator(
    record: EstimatorRecord | PipelineRecord, tensors: Arrays, device: str
) -> BaseEstimator:
    """Make a fitted estimator.

    Parameters
    ----------
    record : Record
        Validated.
    tensors : dict of ndarray
        Those that ``expect_tensors`` lists.
    device : str
        The ``device`` parameter of all that have one.

    Returns
    -------
    BaseEstimator
        Predicts as the one that was saved.

    Raises
    ------
    ValueError
        If parts of the record do not suit each other.
    """
    if not isinstance(record, PipelineRecord):
        return _RESTORE[record.kind](record, tensors, device)
    names = [step.name for step in record.steps]
    if len(set(names)) < len(names) or any("__" in name for name in names):
        raise ValueError(f"its steps' names must differ and have no '__': {names}")
    steps = []
    for step in record.steps:
        prefix = f"{step.name}."
        own = {name: tensors[prefix + name] for name in expect_tensors(step.estimator)}
        steps.append((step.name, restore_estimator(step.estimator, own, device)))
    for name, step_estimator in steps[:-1]:
        if not hasattr(step_estimator, "transform"):
            raise ValueError(f"its step {name!r} must be the last: it has no transform")
    return Pipeline(steps)


def _restore_classifier(
    record: MLPRecord | CNNRecord, tensors: Arrays, device: str
) -> BaseEstimator:
    sizes, shape = record.network, record.input_shape
    kind = getattr(plug_sklearn, record.kind)
    classifier = read_parameters(kind, record.parameters, device=device)
    classes = read_labels(record.classes)
    if isinstance(sizes, MLPSizes):
        n_units = sizes.n_features
    else:
        n_units = sizes.n_layers * sizes.n_parts * sizes.hidden_size
    _agree("input_shape", prod(shape), n_units)
    _agree("classes", len(classes), sizes.n_classes)
    classifier.classes_ = classes
    classifier.input_shape_ = tuple(shape)
    _set_features(classifier, shape[0], record.feature_names)
    classifier.n_iter_ = record.n_epochs
    classifier.best_epoch_ = record.best_epoch
    classifier.monitor_ = record.monitor
    classifier._restore_net(sizes.model_dump(), tensors)
    if isinstance(record, CNNRecord):
        classifier.set_output(transform=record.output)
    return classifier


def _restore_aggregator(
    record: AggregatorRecord, tensors: Arrays, device: str
) -> BaseEstimator:
    kind = plug_sklearn.LayerAggregator
    aggregator: Any = read_parameters(kind, record.parameters)
    n_layers, n_parts, hidden_size = record.input_shape
    _check_positions("layers", record.layers, n_layers)
    _check_positions("parts", record.parts, n_parts)
    # Two axes are read as one layer and one part of features.
    of_axes = {n_layers, hidden_size} if n_layers == n_parts == 1 else {n_layers}
    if record.n_features_in not in of_axes:
        raise ValueError(f"its n_features_in must be among {sorted(of_axes)}")
    aggregator.input_shape_ = tuple(record.input_shape)
    aggregator.layers_ = tuple(record.layers)
    aggregator.parts_ = tuple(record.parts)
    _set_features(aggregator, record.n_features_in, record.feature_names)
    return aggregator.set_output(transform=record.output)


def _restore_embedder(
    record: EmbedderRecord, tensors: Arrays, device: str
) -> BaseEstimator:
    kind = plug_sklearn.HFEmbeddingTransformer
    embedder: Any = read_parameters(kind, record.parameters, device=device)
    if embedder.adapter is not None:
        # Of an adapter on the hub, this is checked once its files are here.
        folder = Path(embedder.adapter).expanduser()
        if folder.is_dir():
            require_safetensors(str(folder), str(embedder.adapter))
    _check_positions("layers", record.layers, record.n_model_layers)
    if len(set(record.parts)) < len(record.parts):
        raise ValueError(f"its parts must differ: {record.parts}")
    embedder.layers_ = tuple(record.layers)
    embedder.parts_ = tuple(record.parts)
    embedder.hidden_size_ = record.hidden_size
    embedder.n_model_layers_ = record.n_model_layers
    embedder.model_revision_ = record.model_revision
    embedder._origin = record.origin
    embedder._stack = record.stack
    embedder._turn = None if record.turn is None else record.turn.model_dump()
    return embedder


def _restore_scaler(
    record: ScalerRecord, tensors: Arrays, device: str
) -> BaseEstimator:
    scaler = read_parameters(StandardScaler, record.parameters)
    for name in ("mean", "var", "scale"):
        setattr(scaler, f"{name}_", tensors.get(name))
    if scaler.scale_ is not None and not (scaler.scale_ > 0).all():
        raise ValueError("its tensor 'scale' must be above 0")
    scaler.n_samples_seen_ = np.int64(record.n_samples_seen)
    _set_features(scaler, record.n_features, record.feature_names)
    return scaler.set_output(transform=record.output)


def _set_features(
    estimator: BaseEstimator, n_features: int, names: list[str] | None
) -> None:
    estimator.n_features_in_ = n_features
    if names is not None:
        _agree("feature_names", len(names), n_features)
        estimator.feature_names_in_ = np.array(names, dtype=object)


def _agree(name: str, found: int, expected: int) -> None:
    if found != expected:
        raise ValueError(f"its {name} must be {expected} in all. Got {found} instead")


def _check_positions(name: str, found: Iterable[int], length: int) -> None:
    found = list(found)
    if len(set(found)) < len(found) or max(found) >= length:
        raise ValueError(f"its {name} must differ and be in [0, {length}): {found}")


_RESTORE: dict[str, Callable[[Any, Arrays, str], BaseEstimator]] = {
    "HFEmbeddingTransformer": _restore_embedder,
    "LayerAggregator": _restore_aggregator,
    "PlugCNNClassifier": _restore_classifier,
    "PlugMLPClassifier": _restore_classifier,
    "StandardScaler": _restore_scaler,
}
