"""Scores of a probe on each layer and part, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, product
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from joblib import effective_n_jobs
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.utils import check_consistent_length, gen_even_slices
from sklearn.utils.parallel import Parallel, delayed

from plug_sklearn._positions import PART_NAMES
from plug_sklearn._warnings import warn_user
from plug_sklearn.evaluation._drawing import (
    GREY,
    add_legend,
    check_axes,
    check_table,
    find_score,
    finish_axes,
    make_axes,
    mark_point,
    name_score,
    style_line,
    write_folds,
)
from plug_sklearn.evaluation._folds import (
    CHANCE,
    Scoring,
    check_score,
    collect_fit_params,
    list_scores,
    score_chance,
    split_folds,
)
from plug_sklearn.evaluation._layer_scores import count_joint_fits, score_layers
from plug_sklearn.features import LayerAggregator

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PolyCollection
    from matplotlib.lines import Line2D

COLUMNS = ("layer", "part", "fold", "fit_time")
BEST = ["layer", "part", "mean"]


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
        Positions along axis 1; negative ones count from the end.
    parts : "all", int, str or sequence of int or str, default="all"
        Positions along axis 2; or names, where the activations hold three parts, in
        the order ``"rs"``, ``"attn"``, ``"mlp"``.
    cv : int, splitter or iterable, default=None
        Folds, as in :func:`~sklearn.model_selection.cross_validate`. They are the same
        for all layers and parts.
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
    if embedder is None:
        X = _read_activations(X)
    elif getattr(embedder, "pooling", "last") is None:
        raise _refuse_tokens()
    # Errors in these are raised before texts are read, which takes long.
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
    n_joint = count_joint_fits(estimator, fit_params, activations, folds)
    n_joint_layers = max(1, n_joint // len(folds))
    n_chunks = max(-(-len(cells) // n_joint_layers), effective_n_jobs(n_jobs))
    features = [(cell, activations[:, *cell]) for cell in cells]
    scored: list[tuple[list[pd.DataFrame], str]] = Parallel(n_jobs=n_jobs)(
        delayed(score_layers)(
            estimator, dict(features[at]), y, folds, scoring, fit_params, n_joint
        )
        for at in gen_even_slices(len(cells), min(n_chunks, len(cells)))
    )
    for failure in {failure for _, failure in scored if failure}:
        warn_user(
            "In layer_sweep, networks were trained one by one, which is slower, since "
            f"training them together failed: {failure}"
        )
    frames = list(chain(*(tables for tables, _ in scored)))
    layer_names, part_names = _name_axes(embedder, activations)
    for (layer, part), frame in zip(cells, frames, strict=True):
        frame.insert(0, "layer", layer_names[layer])
        frame.insert(1, "part", part_names[part])
        _add_chance(frame, chance)
    return pd.concat(frames, ignore_index=True)


def _add_chance(frame: pd.DataFrame, chance: pd.DataFrame) -> None:
    """Add the column of its chance level after each score."""
    for score in list_scores(frame):
        place = list(frame.columns).index(score) + 1
        frame.insert(place, score + CHANCE, chance.get(score, np.nan))


def _read_activations(X: Any) -> NDArray[Any]:  # noqa: ANN401 - anything else is refused
    activations = np.asarray(X)
    if activations.dtype == object and any(map(np.ndim, activations.ravel()[:1])):
        raise _refuse_tokens()
    is_numeric = activations.dtype.kind not in "OSU"
    if not is_numeric or activations.ndim not in (3, 4) or not activations.size:
        raise ValueError(
            "The 'X' parameter of layer_sweep must be activations of 3 or 4 axes, none "
            f"of them empty, or texts with an 'embedder'. Got {activations.dtype} of "
            f"shape {activations.shape} instead."
        )
    return activations


def _refuse_tokens() -> ValueError:
    return ValueError(
        "The 'X' parameter of layer_sweep must be pooled activations, one vector of "
        "each layer for a text. Got those of every token, which pooling=None keeps, "
        "instead. Give the 'embedder' a 'pooling', such as 'mean', or aggregate the "
        "tokens first."
    )


def _name_axes(
    embedder: BaseEstimator | None, activations: NDArray[Any]
) -> tuple[Sequence[int], Sequence[int | str]]:
    _, n_layers, n_parts, _ = activations.shape
    by_position = PART_NAMES if n_parts == len(PART_NAMES) else range(n_parts)
    return (
        getattr(embedder, "layers_", range(n_layers)),
        getattr(embedder, "parts_", by_position),
    )


class LayerSweepDisplay:
    """Plot of the score of each layer, with a line for each part.

    Parameters
    ----------
    sweep : DataFrame
        What :func:`layer_sweep` returns.
    score : str, default=None
        The score to draw, a column of ``sweep``; None: the first.

    Attributes
    ----------
    sweep : DataFrame
        As given.
    score : str
        The score that is drawn.
    summary_ : DataFrame
        A row for each layer and part. Columns: ``layer``, ``part``, and the ``mean``
        and standard deviation ``std`` of the score over the folds.
    best_ : dict
        The ``layer`` and ``part`` of the highest mean, and that ``mean``.
    ax_ : Axes
        The axes.
    figure_ : Figure
        Its figure.
    lines_ : dict of Line2D
        The line of each part.
    bands_ : dict of PolyCollection
        The band of each part: the mean ± one standard deviation over folds.
    chance_line_ : Line2D or None
        The score of a constant prediction; None where that is unknown.

    See Also
    --------
    layer_sweep : Computes the scores.

    Examples
    --------
    >>> import numpy as np
    >>> from plug_sklearn import LayerSweepDisplay
    >>> from sklearn.linear_model import LogisticRegression
    >>> y = np.arange(100) % 2
    >>> X = np.random.default_rng(0).normal(size=(100, 3, 1, 8))
    >>> X[:, 1, 0, 0] += 3 * y
    >>> display = LayerSweepDisplay.from_estimator(
    ...     LogisticRegression(), X, y, scoring="roc_auc"
    ... )
    >>> display.best_["layer"]
    1
    """

    def __init__(self, sweep: pd.DataFrame, *, score: str | None = None) -> None:
        owner = type(self).__name__
        check_table(sweep, COLUMNS, "sweep", owner, "layer_sweep")
        self.sweep = sweep
        self.score = find_score(sweep, score, "sweep", owner)
        grouped = sweep.groupby(["layer", "part"], sort=False)[self.score]
        self.summary_ = grouped.agg(["mean", "std"]).reset_index()
        best = self.summary_["mean"].idxmax()
        (self.best_,) = self.summary_.loc[[best], BEST].to_dict("records")

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: Any,  # noqa: ANN401 - activations, or texts in any container
        y: ArrayLike,
        *,
        score: str | None = None,
        ax: Axes | None = None,
        **options: Any,  # noqa: ANN401 - see layer_sweep
    ) -> Self:
        """Run :func:`layer_sweep`, and draw its scores.

        Parameters
        ----------
        estimator, X, y : see below
            The probe, activations or texts, and targets, as in :func:`layer_sweep`.
        score : str, default=None
            The score to draw, if there are several; None: the first.
        ax : Axes, default=None
            Where to draw; None: a new figure.
        **options : dict
            Further arguments of :func:`layer_sweep`, such as ``cv`` and ``scoring``.

        Returns
        -------
        LayerSweepDisplay
            The display, drawn.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If a parameter is invalid.
        """
        owner = f"{cls.__name__}.from_estimator"
        check_axes(ax, 1, owner)
        check_score(options.get("scoring"), score, owner)
        sweep = layer_sweep(estimator, X, y, **options)
        return cls(sweep, score=score).plot(ax=ax)

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw the scores.

        Parameters
        ----------
        ax : Axes, default=None
            Where to draw; None: a new figure.

        Returns
        -------
        LayerSweepDisplay
            This display.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        (self.ax_,) = make_axes(ax, 1, f"{type(self).__name__}.plot")
        from matplotlib.ticker import MaxNLocator

        self.figure_ = self.ax_.get_figure()
        self.lines_: dict[Any, Line2D] = {}
        self.bands_: dict[Any, PolyCollection] = {}
        by_part = self.summary_.groupby("part", sort=False)
        for number, (part, rows) in enumerate(by_part):
            self._draw_part(part, rows.sort_values("layer"), number, by_part.ngroups)
        self.chance_line_ = self._draw_chance()
        layers = self.summary_["layer"]
        if layers.nunique() == 1:
            self.ax_.set_xlim(layers.iloc[0] - 1, layers.iloc[0] + 1)
        self.ax_.margins(y=0.12)
        self._mark_best(by_part.ngroups)
        self.ax_.set(xlabel="Layer", ylabel=name_score(self.score))
        self.ax_.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        finish_axes(self.ax_)
        bands = [*self.bands_.values()][: self.sweep["fold"].nunique() > 1]
        chance = [] if self.chance_line_ is None else [self.chance_line_]
        add_legend(self.ax_, [*self.lines_.values(), *bands, *chance])
        return self

    def _draw_part(
        self, part: object, rows: pd.DataFrame, number: int, n_parts: int
    ) -> None:
        style = style_line(number)
        folds = write_folds(self.sweep["fold"].nunique())
        (self.lines_[part],) = self.ax_.plot(
            rows["layer"],
            rows["mean"],
            markersize=4,
            label=_name_part(part) if n_parts > 1 else f"mean of {folds}",
            **style,
        )
        # The band of a single layer would have no width.
        edges = rows.loc[rows.index.repeat(2 if len(rows) == 1 else 1)]
        width = 0.05 if len(rows) == 1 else 0
        self.bands_[part] = self.ax_.fill_between(
            edges["layer"] + np.linspace(-width, width, len(edges)),
            edges["mean"] - edges["std"],
            edges["mean"] + edges["std"],
            color=style["color"],
            alpha=0.15,
            linewidth=0,
            label=f"± 1 sd, {folds}" if number == 0 else None,
        )

    def _mark_best(self, n_parts: int) -> None:
        layer, part, mean = (self.best_[name] for name in BEST)
        name = f"{_name_part(part)}, " if n_parts > 1 else ""
        color = self.lines_[part].get_color()
        # Large scores, such as squared errors, have three figures.
        score = f"{mean:.2f}" if abs(mean) < 100 else f"{mean:.3g}"
        text = f"{name}layer {layer}: {score}"
        mark_point(self.ax_, layer, mean, text, color)

    def _draw_chance(self) -> Line2D | None:
        levels = self.sweep.get(self.score + CHANCE)
        if levels is None or levels.isna().all():
            return None
        return self.ax_.axhline(
            levels.mean(), color=GREY, linestyle="--", linewidth=1, label="chance"
        )


def _name_part(part: object) -> str:
    return part if isinstance(part, str) else f"part {part}"
