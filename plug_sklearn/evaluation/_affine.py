"""Convert affine functions of features back through the steps of a pipeline."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    RobustScaler,
    StandardScaler,
)

from plug_sklearn.features import LayerAggregator

Numbers = NDArray[np.float64]
#: Weights (n_outputs, n_features) and intercepts (n_outputs,).
Affine = tuple[Numbers, Numbers]

OWNER = "probe_direction"


def carry_back(step: Any, affine: Affine) -> Affine:  # noqa: ANN401 - a fitted transformer
    """Turn a function of a step's output into a function of the step's input.

    Raises a ValueError if the step is unknown or not affine.
    """
    if step is None or isinstance(step, str):
        # A step of a pipeline that passes features on.
        return affine
    for kind, apply in _STEPS.items():
        if isinstance(step, kind):
            return apply(step, affine)
    if hasattr(step, "get_support"):
        return _through_selection(step, affine)
    known = sorted(kind.__name__ for kind in _STEPS)
    raise ValueError(
        f"The 'estimator' parameter of {OWNER} must have affine steps: {known} or "
        f"feature selections. Got {type(step).__name__} instead."
    )


def _shift_and_scale(affine: Affine, offset: Any, factor: Any) -> Affine:  # noqa: ANN401 - arrays or scalars
    """Convert back through (x - offset) * factor."""
    weights, intercept = affine
    weights = weights * factor
    return weights, intercept - (weights * offset).sum(axis=1)


def _through_standard(step: Any, affine: Affine) -> Affine:  # noqa: ANN401 - of the class that is named
    mean = step.mean_ if step.with_mean else 0.0
    return _shift_and_scale(affine, mean, 1 / step.scale_ if step.with_std else 1.0)


def _through_robust(step: Any, affine: Affine) -> Affine:  # noqa: ANN401 - as above
    center = step.center_ if step.with_centering else 0.0
    scale = 1 / step.scale_ if step.with_scaling else 1.0
    return _shift_and_scale(affine, center, scale)


def _through_min_max(step: Any, affine: Affine) -> Affine:  # noqa: ANN401 - as above
    if step.clip:
        raise ValueError(
            f"The 'estimator' parameter of {OWNER} must have affine steps. Got "
            "MinMaxScaler(clip=True) instead."
        )
    return _shift_and_scale(affine, -step.min_ / step.scale_, step.scale_)


def _through_max_abs(step: Any, affine: Affine) -> Affine:  # noqa: ANN401 - as above
    return _shift_and_scale(affine, 0.0, 1 / step.scale_)


def _through_pca(step: Any, affine: Affine) -> Affine:  # noqa: ANN401 - as above
    weights, intercept = affine
    if step.whiten:
        scale = np.sqrt(step.explained_variance_)
        weights = weights / np.maximum(scale, np.finfo(scale.dtype).eps)
    return _shift_and_scale((weights @ step.components_, intercept), step.mean_, 1.0)


def _through_function(step: Any, affine: Affine) -> Affine:  # noqa: ANN401 - as above
    if step.func is not None:
        raise ValueError(
            f"The 'estimator' parameter of {OWNER} must have affine steps. Got a "
            "FunctionTransformer, whose function is unknown, instead."
        )
    return affine


def _through_selection(step: Any, affine: Affine) -> Affine:  # noqa: ANN401 - a selector of features
    weights, intercept = affine
    support = step.get_support()
    full = np.zeros((len(weights), len(support)))
    full[:, support] = weights
    return full, intercept


def _through_aggregator(step: LayerAggregator, affine: Affine) -> Affine:
    """Convert back to flattened activations, with weight 0 for unread units."""
    weights, intercept = affine
    n_layers, n_parts, hidden_size = step.input_shape_
    layers, parts = np.array(step.layers_), np.array(step.parts_)
    if step.method == "max" and len(layers) > 1:
        raise ValueError(
            f"The 'estimator' parameter of {OWNER} must have affine steps. Got "
            "LayerAggregator(method='max') over several layers instead."
        )
    n_read = 1 if step.method in ("mean", "max") else len(layers)
    own = weights.reshape(len(weights), n_read, len(parts), hidden_size)
    full = np.zeros((len(weights), n_layers, n_parts, hidden_size))
    full[:, layers[:, None], parts] = own * n_read / len(layers)
    return full.reshape(len(weights), -1), intercept


_STEPS: dict[type, Callable[[Any, Affine], Affine]] = {
    LayerAggregator: _through_aggregator,
    StandardScaler: _through_standard,
    RobustScaler: _through_robust,
    MinMaxScaler: _through_min_max,
    MaxAbsScaler: _through_max_abs,
    PCA: _through_pca,
    FunctionTransformer: _through_function,
}
