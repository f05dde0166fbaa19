"""The direction that a probe reads, in the hidden space of the model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    RobustScaler,
    StandardScaler,
)
from sklearn.utils.validation import check_is_fitted

from plug_sklearn.evaluation._inputs import check_estimator, is_embedder
from plug_sklearn.evaluation._layer_choice import BestLayerClassifier
from plug_sklearn.features import LayerAggregator

Numbers = NDArray[np.float64]
#: Weights (n_outputs, n_features) and intercepts (n_outputs,).
Affine = tuple[Numbers, Numbers]
#: Names of layers and of parts, and which are read: (n_layers, n_parts).
Axes = tuple[Sequence[Any], Sequence[Any], NDArray[np.bool_]]

OWNER = "probe_direction"
NETWORKS = ("PlugMLPClassifier", "PlugCNNClassifier")
LEVELS = ["output", "layer", "part"]


@dataclass(frozen=True, eq=False)
class ProbeDirection:
    """The affine function of a model's hidden states that a probe computes.

    The value of an output is its intercept plus, for each layer and part, the norm
    times the dot product of the unit vector and the hidden state.

    Parameters
    ----------
    vectors : DataFrame
        Unit vectors. A row for each output, layer and part that is read; a column for
        each hidden unit, from 0. If there are several poolings, parts have the
        embedder's names, such as ``"rs_mean"``. If all weights are 0, the vector is 0.
    norms : Series
        Lengths of the vectors before they were scaled, with the same index.
    intercepts : Series
        The intercept of each output.
    kind : {"linear", "linear path", "mean gradient"}
        ``"linear"``: the probe computes exactly this function. ``"linear path"``: the
        function is the linear path of a network, without its nonlinear layers.
        ``"mean gradient"``: the vectors are the mean gradient of a network over the
        given samples. The intercept is chosen so that the function and the network have
        the same mean over these samples.
    """

    vectors: pd.DataFrame
    norms: pd.Series
    intercepts: pd.Series
    kind: str


def probe_direction(
    estimator: BaseEstimator,
    X: Any = None,  # noqa: ANN401 - what the estimator takes
) -> ProbeDirection:
    """Find the direction that a fitted probe reads, in the hidden space of the model.

    The weights are converted back through scalers, principal components and the choice
    of layers. Directions of different probes can therefore be compared by their cosine,
    or be added to the states of the model.

    Parameters
    ----------
    estimator : estimator
        A fitted probe, alone or at the end of a pipeline: a linear model of
        scikit-learn, such as ``LogisticRegression``, ``RidgeClassifier``,
        ``LinearSVC`` or ``LinearDiscriminantAnalysis``; a :class:`PlugStackClassifier`;
        or a :class:`PlugMLPClassifier` or :class:`PlugCNNClassifier`. For a fitted
        search, a ``FixedThresholdClassifier`` or a :class:`BestLayerClassifier`, the
        estimator inside it is used.
    X : array-like of shape (n_samples, ...), default=None
        Samples over which the gradient of a network is averaged, in the form that the
        estimator takes. None: use the linear path of a :class:`PlugMLPClassifier`.
        Linear models do not need ``X``.

    Returns
    -------
    ProbeDirection
        Unit vectors by layer and part, their norms, and intercepts. With two classes
        there is one output, the log-odds or decision value of the second class, and it
        is named after this class. With more classes, there is one for each; the outputs
        of networks are relative to the mean over the classes.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.
    ValueError
        If the probe is neither linear nor a network; if a step before it is not affine;
        or if a network without such a linear path is given without ``X``.

    See Also
    --------
    transfer_matrix : Tests a probe on other data sets.

    Examples
    --------
    >>> import numpy as np
    >>> from plug_sklearn import LayerAggregator, probe_direction
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> y = np.arange(200) % 2
    >>> X = np.random.default_rng(0).normal(size=(200, 4, 1, 3))
    >>> X[:, 2, 0, 0] += 3 * y
    >>> probe = make_pipeline(
    ...     LayerAggregator(layers=[2]), StandardScaler(), LogisticRegression()
    ... ).fit(X, y)
    >>> probe_direction(probe).vectors.round(1)
                          0    1    2
    output layer part
    1      2     0      1.0 -0.1  0.0
    """
    check_estimator(estimator, OWNER)
    steps, probe = _unwrap(estimator)
    check_is_fitted(probe)
    embedder = None
    if steps and is_embedder(steps[0]):
        embedder, steps = steps[0], steps[1:]
    features = X
    if X is not None and type(probe).__name__ in NETWORKS:
        for step in [one for one in (embedder, *steps) if hasattr(one, "transform")]:
            features = step.transform(features)
    affine, outputs, kind = _read_probe(probe, features)
    for step in reversed(steps):
        affine = _carry_back(step, affine)
    axes = _name_axes(embedder, steps, probe, affine[0].shape[1])
    return _label(affine, outputs, kind, axes)


def _unwrap(estimator: Any) -> tuple[list[Any], Any]:  # noqa: ANN401 - an estimator of any kind
    """Return the steps before a probe, and the probe."""
    steps: list[Any] = []
    while True:
        if isinstance(estimator, Pipeline):
            check_is_fitted(estimator)
            steps += [step for _, step in estimator.steps[:-1]]
            estimator = estimator.steps[-1][1]
        elif hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        elif isinstance(estimator, FixedThresholdClassifier | BestLayerClassifier):
            check_is_fitted(estimator)
            estimator = estimator.estimator_
        elif isinstance(estimator, FrozenEstimator):
            estimator = estimator.estimator
        else:
            return steps, estimator


def _read_probe(probe: Any, features: Any) -> tuple[Affine, list[Any], str]:  # noqa: ANN401 - of any kind
    """Return the affine function of a probe, the names of its outputs, and its kind."""
    if type(probe).__name__ in NETWORKS:
        from plug_sklearn.classifiers import average_gradient, read_linear_path

        if features is None:
            affine, kind = read_linear_path(probe), "linear path"
        else:
            affine, kind = average_gradient(probe, features), "mean gradient"
        return affine, _name_outputs(probe, len(affine[0])), kind
    if not hasattr(probe, "coef_") or not hasattr(probe, "intercept_"):
        raise ValueError(
            f"The 'estimator' parameter of {OWNER} must be or end in a linear model, "
            f"with 'coef_' and 'intercept_', or in one of {list(NETWORKS)}. Got "
            f"{type(probe).__name__} instead."
        )
    weights = np.asarray(probe.coef_, dtype=np.float64)
    intercept = np.asarray(probe.intercept_, dtype=np.float64)
    n_outputs = len(weights) if weights.ndim == 2 else intercept.size
    affine = weights.reshape(n_outputs, -1), np.broadcast_to(intercept, n_outputs)
    return affine, _name_outputs(probe, n_outputs), "linear"


def _name_outputs(probe: Any, n_outputs: int) -> list[Any]:  # noqa: ANN401 - as above
    classes = getattr(probe, "classes_", None)
    labels: list[Any] = [] if classes is None else np.asarray(classes).tolist()
    if n_outputs == 1 and len(labels) == 2:
        return labels[1:]
    return labels if len(labels) == n_outputs else list(range(n_outputs))


def _carry_back(step: Any, affine: Affine) -> Affine:  # noqa: ANN401 - a fitted transformer
    """Turn a function of a step's output into a function of the step's input."""
    _refuse_nonlinear(step)
    weights, intercept = affine
    if isinstance(step, LayerAggregator):
        return _spread_weights(step, weights), intercept
    for kind, read in _SCALERS.items():
        if isinstance(step, kind):
            offset, factor = read(step)
            weights = weights * factor
            return weights, intercept - (weights * offset).sum(axis=1)
    if isinstance(step, PCA):
        if step.whiten:
            scale = np.sqrt(step.explained_variance_)
            weights = weights / np.maximum(scale, np.finfo(scale.dtype).eps)
        weights = weights @ step.components_
        return weights, intercept - weights @ step.mean_
    if hasattr(step, "get_support"):
        support = step.get_support()
        full = np.zeros((len(weights), len(support)))
        full[:, support] = weights
        return full, intercept
    return affine


def _refuse_nonlinear(step: Any) -> None:  # noqa: ANN401 - a fitted transformer
    # A step may be None or "passthrough".
    is_known = step is None or isinstance(step, (str, *_AFFINE))
    refused = None
    if not is_known and not hasattr(step, "get_support"):
        known = sorted(kind.__name__ for kind in _AFFINE)
        refused = f": {known} or feature selections. Got {type(step).__name__}"
    elif isinstance(step, MinMaxScaler) and step.clip:
        refused = ". Got MinMaxScaler(clip=True)"
    elif isinstance(step, FunctionTransformer) and step.func is not None:
        refused = ". Got a FunctionTransformer, whose function is unknown,"
    elif (
        isinstance(step, LayerAggregator)
        and step.method == "max"
        and len(step.layers_) > 1
    ):
        refused = ". Got LayerAggregator(method='max') over several layers"
    if refused is not None:
        raise ValueError(
            f"The 'estimator' parameter of {OWNER} must have affine steps{refused} "
            "instead."
        )


def _spread_weights(step: LayerAggregator, weights: Numbers) -> Numbers:
    """Return weights of flattened activations, which are 0 for unread units."""
    n_layers, n_parts, hidden_size = step.input_shape_
    layers, parts = np.array(step.layers_), np.array(step.parts_)
    n_read = 1 if step.method in ("mean", "max") else len(layers)
    own = weights.reshape(len(weights), n_read, len(parts), hidden_size)
    full = np.zeros((len(weights), n_layers, n_parts, hidden_size))
    full[:, layers[:, None], parts] = own * n_read / len(layers)
    return full.reshape(len(weights), -1)


#: For each scaler, the offset and factor of (x - offset) * factor.
_SCALERS: dict[type, Callable[[Any], tuple[Any, Any]]] = {
    StandardScaler: lambda step: (
        step.mean_ if step.with_mean else 0.0,
        1 / step.scale_ if step.with_std else 1.0,
    ),
    RobustScaler: lambda step: (
        step.center_ if step.with_centering else 0.0,
        1 / step.scale_ if step.with_scaling else 1.0,
    ),
    MinMaxScaler: lambda step: (-step.min_ / step.scale_, step.scale_),
    MaxAbsScaler: lambda step: (0.0, 1 / step.scale_),
}
_AFFINE = (LayerAggregator, PCA, FunctionTransformer, *_SCALERS)


def _name_axes(
    embedder: Any,  # noqa: ANN401 - an HFEmbeddingTransformer or None
    steps: list[Any],
    probe: Any,  # noqa: ANN401 - of any kind
    n_features: int,
) -> Axes:
    """Name the layers and parts of the hidden units that are a probe's features."""
    first = steps[0] if steps else None
    shape: Any = getattr(probe if first is None else first, "input_shape_", ())
    if embedder is not None:
        shape = len(embedder.layers_), len(embedder.parts_), embedder.hidden_size_
    elif len(shape) == 2:
        shape = shape[0], 1, shape[1]
    elif len(shape) != 3:
        shape = 1, 1, n_features
    is_read = np.ones(shape[:2], dtype=bool)
    layers: Sequence[Any] = range(shape[0])
    parts: Sequence[Any] = range(shape[1])
    if isinstance(first, LayerAggregator):
        is_read[:] = False
        is_read[np.ix_(first.layers_, first.parts_)] = True
        layers = first.model_layers_ or layers
        parts = first.part_names_ or parts
    if embedder is not None:
        layers, parts = embedder.layers_, embedder.parts_
    return layers, parts, is_read


def _label(affine: Affine, outputs: list[Any], kind: str, axes: Axes) -> ProbeDirection:
    (weights, intercept), (layers, parts, is_read) = affine, axes
    rows = [
        (output, layers[layer], parts[part])
        for output in outputs
        for layer, part in np.argwhere(is_read)
    ]
    by_axis = weights.reshape(len(weights), *is_read.shape, -1)
    found: Numbers = by_axis[:, is_read].reshape(len(rows), -1)
    norms = np.linalg.norm(found, axis=1)
    index = pd.MultiIndex.from_tuples(rows, names=LEVELS)
    return ProbeDirection(
        vectors=pd.DataFrame(
            found / np.where(norms > 0, norms, 1)[:, None], index=index
        ),
        norms=pd.Series(norms, index=index, name="norm"),
        intercepts=pd.Series(
            intercept, index=pd.Index(outputs, name="output"), name="intercept"
        ),
        kind=kind,
    )
