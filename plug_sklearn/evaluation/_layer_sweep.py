"""Scores of a probe on each layer and part, as a table and as a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator

from plug_sklearn.evaluation._drawing import (
    GREY,
    ScoresDisplay,
    add_legend,
    mark_point,
    name_score,
    style_line,
    write_folds,
    write_name,
)
from plug_sklearn.evaluation._folds import CHANCE, Scoring
from plug_sklearn.evaluation._layer_choice import summarize_layers
from plug_sklearn.evaluation._layer_fits import sweep_layers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PolyCollection
    from matplotlib.lines import Line2D

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
    verbose: bool = False,
) -> pd.DataFrame:
    """Cross-validate a probe on each layer and part, all on the same folds.

    On the CPU, networks of a :class:`PlugMLPClassifier` for different layers and folds
    are trained together, in groups of up to 256 MB. This is several times faster and
    gives the same results as separate fits. It requires ``sizing="heuristic"``, no
    ``callbacks`` and no ``verbose``. The number of features and the widths must be
    multiples of 16. Most hidden sizes are, and so are the widths for up to about 16 /
    ``target_ratio`` samples per feature. Without a ``random_state``, all networks of a
    group use the same random seed.

    Other probes are fitted one by one. If the features of a layer hold at most 2**22
    numbers, BLAS is limited to one thread during the fits, which is several times
    faster for linear probes. This is only done if ``layer_sweep`` is called in the main
    thread of the process.

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
        Layers, as in :class:`LayerAggregator`: the model's layer numbers if an embedder
        gives the activations, and positions along axis 1 otherwise.
    parts : "all", int, str or sequence of int or str, default="all"
        Parts, as in :class:`LayerAggregator`: positions along axis 2, or names.
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
        Further arguments of the estimator's ``fit``. Those with a value for each sample
        are split with ``X``.
    n_jobs : int, default=None
        Number of joblib workers, over layers and parts.
    verbose : bool, default=False
        Whether to show a progress bar, in a terminal or notebook.

    Returns
    -------
    DataFrame
        A row for each layer, part and fold, in this order. Columns: ``layer``, as the
        embedder numbers it, or the position along axis 1; ``part``, its name, or the
        position along axis 2 where it has none; ``fold``, from 0; for each score, a
        column with its name, or ``score`` if it has none, and one whose name ends in
        ``_chance``, with the score of a constant prediction on the same fold; then
        ``fit_time`` and ``score_time``, in seconds. Probes that are trained together
        have equal shares of the time.

    Raises
    ------
    ValueError
        If ``layers`` or ``parts`` are not in ``X``, if ``X`` does not hold activations,
        or if all fits to one layer and part fail; a note on the error names the layer
        and part. If only some of the fits fail, their scores are NaN.

    Warns
    -----
    UserWarning
        If an error keeps networks from being trained together. They are then trained
        one by one.

    See Also
    --------
    LayerSweepDisplay : Plots these scores.
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


class LayerSweepDisplay(ScoresDisplay):
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
        A row for each layer and part, as :func:`summarize_layers` returns it.
    best_ : dict
        The ``layer`` and ``part`` of the highest mean, and that ``mean``.
    chosen_ : dict
        The same for the first layer within one standard error of the best.
    ax_ : Axes
        The axes.
    figure_ : Figure
        Its figure.
    lines_ : dict of Line2D
        The line of each part.
    bands_ : dict of PolyCollection
        The band of each part: the mean ± one standard deviation over folds.
    chance_line_ : Line2D or None
        The score of a constant prediction; None if it is unknown.

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

    _compute = staticmethod(layer_sweep)
    _columns = ("layer", "part", "fold", "fit_time")

    def __init__(self, sweep: pd.DataFrame, *, score: str | None = None) -> None:
        super().__init__(sweep, score=score)
        self.sweep = sweep
        self.summary_ = summarize_layers(sweep, score=self.score)
        self.best_, self.chosen_ = (
            self.summary_.loc[self.summary_[column], BEST].to_dict("records")[0]
            for column in ("is_best", "is_chosen")
        )

    def _draw(self, axes: list[Axes]) -> None:
        (self.ax_,) = axes
        from matplotlib.ticker import MaxNLocator

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
        chosen = self._mark_chosen()
        self.ax_.set(xlabel="Layer", ylabel=write_name(name_score(self.score)))
        self.ax_.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        bands = [*self.bands_.values()][: self.sweep["fold"].nunique() > 1]
        chance = [] if self.chance_line_ is None else [self.chance_line_]
        add_legend(self.ax_, [*self.lines_.values(), *bands, *chance, *chosen])

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

    def _mark_chosen(self) -> list[Line2D]:
        """Mark the first layer within one standard error, if it is not the best."""
        if self.chosen_ == self.best_:
            return []
        layer, part, mean = (self.chosen_[name] for name in BEST)
        return self.ax_.plot(
            layer,
            mean,
            "D",
            markersize=10,
            fillstyle="none",
            color=self.lines_[part].get_color(),
            label=f"layer {layer}: first within 1 se",
        )

    def _draw_chance(self) -> Line2D | None:
        levels = self.sweep.get(self.score + CHANCE)
        if levels is None or levels.isna().all():
            return None
        return self.ax_.axhline(
            levels.mean(), color=GREY, linestyle="--", linewidth=1, label="chance"
        )


def _name_part(part: object) -> str:
    return write_name(part if isinstance(part, str) else f"part {part}", most=20)
