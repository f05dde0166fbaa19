"""Activations, or texts → scores of a probe on each layer and part."""

from collections.abc import Mapping, Sequence
from itertools import chain, product
from typing import Any

import numpy as np
import pandas as pd
from joblib import effective_n_jobs
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.utils import check_consistent_length, gen_even_slices
from sklearn.utils.parallel import Parallel, delayed

from plug_sklearn.evaluation._folds import (
    collect_fit_params,
    score_chance,
    split_folds,
)
from plug_sklearn.evaluation._layer_scores import count_at_once, score_layers
from plug_sklearn.evaluation._tables import CHANCE, Scoring, list_scores
from plug_sklearn.features import LayerAggregator

#: What the positions along axis 2 hold when all three parts are there.
PART_NAMES = ("rs", "attn", "mlp")


def layer_sweep(
    estimator: BaseEstimator,
    X: Any,  # noqa: ANN401 - activations, or texts in any container
    y: ArrayLike,
    *,
    embedder: BaseEstimator | None = None,
    layers: str | int | Sequence[int] = "all",
    parts: str | int | Sequence[int | str] = "all",
    cv: Any = None,  # noqa: ANN401 - as scikit-learn's functions take it
    scoring: Scoring | None = None,
    groups: ArrayLike | None = None,
    params: Mapping[str, Any] | None = None,
    n_jobs: int | None = None,
) -> pd.DataFrame:
    """Cross-validate a probe on each layer and part, all on the same folds.

    A :class:`PlugMLPClassifier` on the CPU is fitted to many layers and folds at once,
    several times faster, as far as a quarter of a gigabyte allows, and where each comes
    out as it would alone: one without ``callbacks`` or ``verbose``, of
    ``sizing="heuristic"``, on features and widths that are multiples of 16. Hidden
    sizes mostly are, and so are the widths for up to about 16 / ``target_ratio`` rows a
    feature. Without a ``random_state``, those that are fitted at once draw from one
    seed.

    Parameters
    ----------
    estimator : estimator
        The probe: takes features of one layer and part, of shape (n_samples,
        hidden_size).
    X : array-like of shape (n_samples, n_layers, n_parts, hidden_size) or texts
        Activations; three axes are read as (n_samples, n_layers, hidden_size). Or,
        with an ``embedder``, what it takes.
    y : array-like of shape (n_samples,)
        Targets.
    embedder : transformer, default=None
        Turns ``X`` into activations, such as :class:`HFEmbeddingTransformer`: all of it
        at once, before any probe is fitted, so that each text is read once. It is not
        fitted on each fold, and so must be one that learns nothing from ``X``.
    layers : "all", int or sequence of int, default="all"
        Positions along axis 1; negative ones count from the end.
    parts : "all", int, str or sequence of int or str, default="all"
        Positions along axis 2; or names, where the activations hold three parts, in
        the order ``"rs"``, ``"attn"``, ``"mlp"``.
    cv : int, splitter or iterable, default=None
        Folds, as in :func:`~sklearn.model_selection.cross_validate`. They are split
        once, and so are the same for all layers and parts.
    scoring : str, callable, sequence of str or dict, default=None
        One score or several, as in :func:`~sklearn.model_selection.cross_validate`;
        None: the estimator's own.
    groups : array-like of shape (n_samples,), default=None
        Groups for ``cv``. They also reach the ``fit`` of an estimator that takes them,
        such as :class:`PlugMLPClassifier`, and the splitter of a search that uses them,
        such as ``GridSearchCV(cv=GroupKFold())``, alone or in a pipeline.
    params : dict, default=None
        More arguments of the estimator's ``fit``; those of the length of ``X`` are
        split with it.
    n_jobs : int, default=None
        Workers of joblib, over layers and parts.

    Returns
    -------
    DataFrame
        A row for each layer, part and fold, in this order. Columns: ``layer``, as the
        embedder numbers it, or the position along axis 1; ``part``, its name, or the
        position along axis 2 where it has none; ``fold``, from 0; for each score a
        column of its name, or ``score`` where it has none, and one that ends in
        ``_chance``, with what a constant prediction scores on the same fold; then
        ``fit_time`` and ``score_time``, in seconds. Those that are fitted at once have
        even shares of the time.

    Raises
    ------
    ValueError
        If ``layers`` or ``parts`` are not in ``X``, ``X`` is no activations, or no fit
        to one of the layers and parts succeeds; a note says to which. Where some do,
        the scores of the others are NaN.

    See Also
    --------
    LayerSweepDisplay : The same as a picture.
    LayerAggregator : Chooses layers and parts in a pipeline.

    Examples
    --------
    >>> import numpy as np
    >>> from plug_sklearn import layer_sweep
    >>> from sklearn.linear_model import LogisticRegression
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(100) % 2
    >>> X = rng.normal(size=(100, 3, 1, 8))  # samples, layers, parts, hidden units
    >>> X[:, 1, 0, 0] += 3 * y
    >>> sweep = layer_sweep(LogisticRegression(), X, y, scoring="roc_auc")
    >>> sweep.groupby("layer")["roc_auc"].mean().round(2).tolist()
    [0.51, 0.98, 0.5]
    """
    if embedder is None:
        X = _read_activations(X)
    # What is wrong with these comes out before texts are read, which takes long.
    check_consistent_length(X, y)
    folds = split_folds(estimator, X, y, cv, groups)
    chance = score_chance(estimator, y, folds, scoring)
    if embedder is not None:
        embedder = clone(embedder)
        X = _read_activations(embedder.fit_transform(X))
    selector = LayerAggregator(layers=layers, parts=parts).fit(X)
    activations = X.reshape(len(X), *selector.input_shape_)
    cells = list(product(selector.layers_, selector.parts_))
    fit_params = collect_fit_params(estimator, params, groups)
    n_at_once = count_at_once(estimator, fit_params, activations, folds)
    n_layers_at_once = max(1, n_at_once // len(folds))
    n_chunks = max(-(-len(cells) // n_layers_at_once), effective_n_jobs(n_jobs))
    taken = [(cell, activations[:, *cell]) for cell in cells]
    scored: list[list[pd.DataFrame]] = Parallel(n_jobs=n_jobs)(
        delayed(score_layers)(
            estimator, dict(taken[at]), y, folds, scoring, fit_params, n_at_once
        )
        for at in gen_even_slices(len(cells), min(n_chunks, len(cells)))
    )
    layer_names, part_names = _name_axes(embedder, activations)
    frames = list(chain(*scored))
    for (layer, part), frame in zip(cells, frames, strict=True):
        frame.insert(0, "layer", layer_names[layer])
        frame.insert(1, "part", part_names[part])
        for score in list_scores(frame):
            place = list(frame.columns).index(score) + 1
            frame.insert(place, score + CHANCE, chance.get(score, np.nan))
    return pd.concat(frames, ignore_index=True)


def _read_activations(X: Any) -> NDArray[Any]:  # noqa: ANN401 - what is none is refused
    activations = np.asarray(X)
    is_numeric = activations.dtype.kind not in "OSU"
    if not is_numeric or activations.ndim not in (3, 4) or not activations.size:
        raise ValueError(
            "The 'X' parameter of layer_sweep must be activations of 3 or 4 axes, none "
            f"of them empty, or texts with an 'embedder'. Got {activations.dtype} of "
            f"shape {activations.shape} instead."
        )
    return activations


def _name_axes(
    embedder: BaseEstimator | None, activations: NDArray[Any]
) -> tuple[Sequence[int], Sequence[int | str]]:
    _, n_layers, n_parts, _ = activations.shape
    by_position = PART_NAMES if n_parts == len(PART_NAMES) else range(n_parts)
    return (
        getattr(embedder, "layers_", range(n_layers)),
        getattr(embedder, "parts_", by_position),
    )
