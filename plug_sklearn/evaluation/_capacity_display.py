"""Plot of the score and size of a probe for several budgets of parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator

from plug_sklearn.evaluation._capacity import capacity_curve
from plug_sklearn.evaluation._drawing import (
    BLUE,
    GREY,
    VERMILION,
    add_legend,
    check_axes,
    check_table,
    find_score,
    finish_axes,
    make_axes,
    mark_point,
    name_score,
    write_folds,
    write_name,
)
from plug_sklearn.evaluation._folds import check_score

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = ("target_ratio", "n_train", "n_parameters", "fold", "fit_time")

#: Labels of the networks whose width is at a limit.
ADVICE = {
    "least": 'least width; sizing="budget" goes below',
    "most": 'greatest width; sizing="budget" goes above',
}
#: Inches that the label of a ratio takes, with room beside it.
LABEL_WIDTH = 0.42


class CapacityCurveDisplay:
    """Plot of the score and of the number of parameters for each ``target_ratio``.

    Parameters
    ----------
    curve : DataFrame
        What :func:`capacity_curve` returns.
    score : str, default=None
        The score to draw, a column of ``curve``; None: the first.

    Attributes
    ----------
    curve : DataFrame
        As given.
    score : str
        The score that is drawn.
    summary_ : DataFrame
        A row for each ``target_ratio``. Columns: the ``mean`` and standard deviation
        ``std`` of the score over the folds; the means ``n_parameters`` and ``budget``,
        which is ``target_ratio`` times the number of training rows; and
        ``width_limit``, as in ``curve`` if it is the same in all folds, or ``"none"``.
    best_ratio_ : float
        The ``target_ratio`` of the highest mean.
    ax_ : list of Axes
        The axes of the scores, and below them those of the parameters.
    figure_ : Figure
        Their figure.
    score_line_, parameters_line_, budget_line_ : Line2D
        The mean score, the number of parameters, and the budget.
    limit_marks_ : list of Line2D
        Hollow marks where networks have the least or the greatest width, so that
        ``target_ratio`` does not change them.
    band_ : PolyCollection
        The mean score ± one standard deviation over folds.

    See Also
    --------
    capacity_curve : Computes the numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from plug_sklearn import CapacityCurveDisplay, PlugMLPClassifier
    >>> y = np.arange(100) % 2
    >>> X = np.random.default_rng(0).normal(size=(100, 4)) + y[:, None]
    >>> probe = PlugMLPClassifier(max_epochs=3, random_state=0)
    >>> display = CapacityCurveDisplay.from_estimator(
    ...     probe, X, y, target_ratios=[1, 10], cv=2
    ... )
    >>> display.summary_["target_ratio"].tolist()
    [1.0, 10.0]
    """

    def __init__(self, curve: pd.DataFrame, *, score: str | None = None) -> None:
        owner = type(self).__name__
        check_table(curve, COLUMNS, "curve", owner, "capacity_curve")
        self.curve = curve
        self.score = find_score(curve, score, "curve", owner)
        rows = curve.assign(
            budget=curve["target_ratio"] * curve["n_train"],
            width_limit=curve.get("width_limit", "none"),
        )
        self.summary_ = (
            rows.groupby("target_ratio")
            .agg(
                mean=(self.score, "mean"),
                std=(self.score, "std"),
                n_parameters=("n_parameters", "mean"),
                budget=("budget", "mean"),
                width_limit=("width_limit", _agree),
            )
            .reset_index()
        )
        best = int(self.summary_["mean"].argmax())
        self.best_ratio_ = float(self.summary_["target_ratio"].iloc[best])

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: Any,  # noqa: ANN401 - whatever the estimator takes
        y: ArrayLike,
        *,
        score: str | None = None,
        ax: Axes | Sequence[Axes] | None = None,
        **options: Any,  # noqa: ANN401 - see capacity_curve
    ) -> Self:
        """Run :func:`capacity_curve`, and draw its scores and numbers of parameters.

        Parameters
        ----------
        estimator, X, y : see below
            The probe, features and labels, as in :func:`capacity_curve`.
        score : str, default=None
            The score to draw, if there are several; None: the first.
        ax : Axes or sequence of Axes, default=None
            Where to draw: two Axes, or one to be divided; None: a new figure.
        **options : dict
            Further arguments of :func:`capacity_curve`, such as ``cv``.

        Returns
        -------
        CapacityCurveDisplay
            The display, drawn.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If a parameter is invalid.
        """
        owner = f"{cls.__name__}.from_estimator"
        check_axes(ax, 2, owner)
        check_score(options.get("scoring"), score, owner)
        curve = capacity_curve(estimator, X, y, **options)
        return cls(curve, score=score).plot(ax=ax)

    def plot(self, ax: Axes | Sequence[Axes] | None = None) -> Self:
        """Draw scores and parameters.

        Parameters
        ----------
        ax : Axes or sequence of Axes, default=None
            Where to draw: two Axes, or one to be divided; None: a new figure.

        Returns
        -------
        CapacityCurveDisplay
            This display.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        self.ax_ = make_axes(ax, 2, f"{type(self).__name__}.plot", height=5.5)
        self.figure_ = self.ax_[0].get_figure()
        upper, lower = self.ax_
        upper.set_xscale("log")
        lower.set(xscale="log", yscale="log")
        self._draw_scores(upper)
        self._draw_parameters(lower)
        self._label_ratios(lower)
        for axes in self.ax_:
            finish_axes(axes)
        upper.legend(frameon=False)
        add_legend(lower)
        return self

    def _label_ratios(self, axes: Axes) -> None:
        ratios = self.summary_["target_ratio"].to_numpy()
        extent = axes.get_window_extent()
        inches = extent.transformed(axes.figure.dpi_scale_trans.inverted()).width
        room = LABEL_WIDTH / inches * np.ptp(np.log(ratios))
        labels, last = [], -np.inf
        for ratio in ratios:
            is_far = np.log(ratio) - last >= room
            labels.append(f"{ratio:.3g}" if is_far else "")
            last = np.log(ratio) if is_far else last
        axes.set_xticks(ratios, labels)
        axes.minorticks_off()

    def _draw_scores(self, axes: Axes) -> None:
        rows = self.summary_
        n_folds = self.curve["fold"].nunique()
        ratios, mean, std = rows["target_ratio"], rows["mean"], rows["std"]
        (self.score_line_,) = axes.plot(
            ratios, mean, "-o", color=BLUE, label=f"mean of {write_folds(n_folds)}"
        )
        self.band_ = axes.fill_between(
            ratios,
            mean - std,
            mean + std,
            color=BLUE,
            alpha=0.15,
            linewidth=0,
            label="± 1 sd" if n_folds > 1 else None,
        )
        axes.margins(y=0.15)
        best = float(mean.max())
        mark_point(axes, self.best_ratio_, best, f"{best:.3f}", BLUE)
        axes.set(ylabel=write_name(name_score(self.score), most=24))

    def _draw_parameters(self, axes: Axes) -> None:
        rows = self.summary_
        (self.parameters_line_,) = axes.plot(
            rows["target_ratio"],
            rows["n_parameters"],
            "-s",
            color=VERMILION,
            label="built",
        )
        (self.budget_line_,) = axes.plot(
            rows["target_ratio"],
            rows["budget"],
            color=GREY,
            linestyle="--",
            label="ratio times training rows",
        )
        self.limit_marks_ = []
        for limit, advice in ADVICE.items():
            limited = rows[rows["width_limit"] == limit]
            if len(limited):
                self.limit_marks_ += axes.plot(
                    limited["target_ratio"],
                    limited["n_parameters"],
                    "s",
                    color=VERMILION,
                    markerfacecolor="white",
                    label=advice,
                )
        axes.set(xlabel="target_ratio", ylabel="Trainable parameters")


def _agree(limits: pd.Series) -> str:
    return str(limits.iloc[0]) if limits.nunique() == 1 else "none"
