"""Plot of the score of a probe on each layer, with a line for each part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

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
from plug_sklearn.evaluation._folds import CHANCE
from plug_sklearn.evaluation._layer_choice import summarize_layers
from plug_sklearn.evaluation._layer_sweep import layer_sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PolyCollection
    from matplotlib.lines import Line2D

BEST = ["layer", "part", "mean"]


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
        The same of the first layer within one standard error of the best.
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
