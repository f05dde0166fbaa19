"""Scores of a probe on each layer and part."""

from collections.abc import Mapping, Sequence
from itertools import chain, product
from typing import Any

import numpy as np
import pandas as pd
from joblib import effective_n_jobs
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.utils import gen_even_slices
from sklearn.utils.parallel import delayed

from plug_sklearn._progress import run_jobs
from plug_sklearn._warnings import warn_user
from plug_sklearn.evaluation._folds import (
    CHANCE,
    Folds,
    Scoring,
    collect_fit_params,
    list_scores,
    score_chance,
    split_folds,
)
from plug_sklearn.evaluation._inputs import check_estimator, check_rows
from plug_sklearn.evaluation._joint_fits import count_joint_fits, score_layers
from plug_sklearn.features import LayerAggregator


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
    verbose: bool = False,
) -> pd.DataFrame:
    """Cross-validate a probe on each layer and part, all on the same folds.

    On the CPU, networks of a :class:`PlugMLPClassifier` for different layers and folds
    are trained together, in groups of up to 256 MB. This is several times faster and
    gives the same results as separate fits. It requires ``sizing="heuristic"``, no
    ``callbacks`` and no ``verbose``, and a number of features and widths that are
    multiples of 16: hidden sizes mostly are, and so are the widths for up to about
    16 / ``target_ratio`` rows per feature. Without a ``random_state``, all networks of
    a group use the same random seed.

    Other probes are fitted one by one. If the features of a layer hold at most 2**22
    numbers, BLAS is limited to one thread meanwhile, which is several times faster for
    linear probes. This needs the main thread of a process.

    Parameters
    ----------
    estimator : estimator
        The probe. It is fitted on the features of one layer and part, of shape
        (n_samples, hidden_size).
    X : array-like of shape (n_samples, n_layers, n_parts, hidden_size) or texts
        Activations; three axes are read as (n_samples, n_layers, hidden_size). Or,
        with an ``embedder``, what it takes.
    y : array-like of shape (n_samples,)
        Targets.
    embedder : transformer, default=None
        Turns ``X`` into activations, such as :class:`HFEmbeddingTransformer`. It
        transforms all of ``X`` once, before any probe is fitted. Since it is not
        fitted on each fold, it must not learn anything from ``X``.
    layers : "all", int or sequence of int, default="all"
        Layers, as in :class:`LayerAggregator`: as the model numbers them, where an
        embedder gives the activations, and positions along axis 1 otherwise.
    parts : "all", int, str or sequence of int or str, default="all"
        Positions along axis 2; or names, where the activations hold three parts, in
        the order ``"rs"``, ``"attn"``, ``"mlp"``.
    cv : int, splitter or iterable, default=None
        Folds, as in :func:`~sklearn.model_selection.cross_validate`. They are the same
        for all layers and parts.
        With ``groups``, None or a number of folds keeps groups together, by
        ``StratifiedGroupKFold`` for classes and ``GroupKFold`` otherwise.
    scoring : str, callable, sequence of str or dict, default=None
        One score or several, as in :func:`~sklearn.model_selection.cross_validate`;
        None: the estimator's own.
    groups : array-like of shape (n_samples,), default=None
        Groups for ``cv``. They also reach the ``fit`` of an estimator that takes them,
        such as :class:`PlugMLPClassifier`, and the splitter of a search that uses them,
        such as ``GridSearchCV(cv=GroupKFold())``, alone or in a pipeline.
    params : dict, default=None
        Further arguments of the estimator's ``fit``. Those with a value for each row
        are split with ``X``.
    n_jobs : int, default=None
        Workers of joblib, over layers and parts.
    verbose : bool, default=False
        Whether to show a progress bar, in a terminal or notebook.

    Returns
    -------
    DataFrame
        A row for each layer, part and fold, in this order. Columns: ``layer``, as the
        embedder numbers it, or the position along axis 1; ``part``, its name, or the
        position along axis 2 where it has none; ``fold``, from 0; for each score a
        column of its name, or ``score`` where it has none, and one that ends in
        ``_chance``, with the score of a constant prediction on the same fold; then
        ``fit_time`` and ``score_time``, in seconds. Probes that are trained together
        have equal shares of the time.

    Raises
    ------
    ValueError
        If ``layers`` or ``parts`` are not in ``X``, if ``X`` does not hold activations,
        or if all fits to one layer and part fail; a note names it. If only some of
        them fail, their scores are NaN.

    Warns
    -----
    UserWarning
        If an error keeps networks from being trained together, so that they are
        trained one by one.

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
    return sweep_layers(
        estimator,
        X,
        y,
        embedder=embedder,
        layers=layers,
        parts=parts,
        cv=cv,
        scoring=scoring,
        groups=groups,
        params=params,
        n_jobs=n_jobs,
        verbose=verbose,
        owner="layer_sweep",
    )


def sweep_layers(
    estimator: BaseEstimator,
    X: Any,  # noqa: ANN401 - activations, or texts in any container
    y: ArrayLike,
    *,
    embedder: BaseEstimator | None = None,
    layers: str | int | Sequence[int],
    parts: str | int | Sequence[int | str],
    cv: Any,  # noqa: ANN401 - as scikit-learn's functions take it
    scoring: Scoring | None,
    groups: ArrayLike | None,
    params: Mapping[str, Any] | None = None,
    n_jobs: int | None,
    verbose: bool = False,
    owner: str,
) -> pd.DataFrame:
    """Do what :func:`layer_sweep` does, with errors that name the ``owner``."""
    check_estimator(estimator, owner)
    if embedder is None:
        X = _read_activations(X, owner)
    elif getattr(embedder, "pooling", "last") is None:
        raise _refuse_tokens(owner)
    # Errors in these are raised before texts are read, which takes long.
    check_rows(X, y, groups, owner)
    folds = split_folds(estimator, X, y, cv, groups, owner)
    chance = score_chance(estimator, y, folds, scoring)
    if embedder is not None:
        embedder = clone(embedder)
        X = _read_activations(embedder.fit_transform(X), owner)
    selector = LayerAggregator(layers=layers, parts=parts).fit(X)
    activations = np.asarray(X).reshape(len(X), *selector.input_shape_)
    cells = list(product(selector.layers_, selector.parts_))
    features = {cell: activations[:, *cell] for cell in cells}
    fit_params = collect_fit_params(estimator, params, groups)
    frames = _score_cells(
        estimator, features, y, folds, scoring, fit_params, n_jobs, verbose
    )
    layer_names = getattr(embedder, "layers_", selector.model_layers_)
    part_names = getattr(embedder, "parts_", selector.part_names_)
    for (layer, part), frame in zip(cells, frames, strict=True):
        frame.insert(0, "layer", layer_names[layer] if layer_names else layer)
        frame.insert(1, "part", part_names[part] if part_names else part)
        _add_chance(frame, chance)
    return pd.concat(frames, ignore_index=True)


def _score_cells(
    estimator: BaseEstimator,
    features: Mapping[tuple[int, int], NDArray[Any]],
    y: ArrayLike,
    folds: Folds,
    scoring: Scoring | None,
    fit_params: Mapping[str, Any],
    n_jobs: int | None,
    verbose: bool,
) -> list[pd.DataFrame]:
    """Return the scores on each layer and part, whose features are given by position.

    Workers get several layers each, so that their probes can be fitted together.
    """
    n_joint = count_joint_fits(
        estimator, fit_params, next(iter(features.values())).shape, folds
    )
    n_joint_layers = max(1, n_joint // len(folds))
    n_chunks = max(-(-len(features) // n_joint_layers), effective_n_jobs(n_jobs))
    cells = list(features.items())
    chunks = gen_even_slices(len(cells), min(n_chunks, len(cells)))
    scored: list[tuple[list[pd.DataFrame], str]] = run_jobs(
        [
            delayed(score_layers)(
                estimator, dict(cells[at]), y, folds, scoring, fit_params, n_joint
            )
            for at in chunks
        ],
        n_jobs=n_jobs,
        unit="group of layers",
        verbose=verbose,
    )
    for failure in {failure for _, failure in scored if failure}:
        warn_user(
            "In layer_sweep, networks were trained one by one, which is slower, "
            f"because training them together failed: {failure}"
        )
    return list(chain(*(tables for tables, _ in scored)))


def _add_chance(frame: pd.DataFrame, chance: pd.DataFrame) -> None:
    """Add the column of its chance level after each score."""
    for score in list_scores(frame):
        place = list(frame.columns).index(score) + 1
        frame.insert(place, score + CHANCE, chance.get(score, np.nan))


def _read_activations(X: Any, owner: str) -> NDArray[Any]:  # noqa: ANN401 - anything else is refused
    activations: NDArray[Any] = np.asanyarray(X)
    if activations.dtype == object and any(map(np.ndim, activations.ravel()[:1])):
        raise _refuse_tokens(owner)
    is_numeric = activations.dtype.kind not in "OSU"
    if not is_numeric or activations.ndim not in (3, 4) or not activations.size:
        other = ", or texts with an 'embedder'" if owner == "layer_sweep" else ""
        raise ValueError(
            f"The 'X' parameter of {owner} must be activations of 3 or 4 axes, none "
            f"of them empty{other}. Got {activations.dtype} of shape "
            f"{activations.shape} instead."
        )
    return activations


def _refuse_tokens(owner: str) -> ValueError:
    return ValueError(
        f"The 'X' parameter of {owner} must be pooled activations, one vector of "
        "each layer for a text. Got those of every token, which pooling=None keeps, "
        "instead. Give the 'embedder' a 'pooling', such as 'mean', or aggregate the "
        "tokens first."
    )
