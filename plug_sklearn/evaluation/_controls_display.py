"""Plot a probe and its controls: a bar for each, and a point for each fold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator

from plug_sklearn.evaluation._controls import PROBE, probe_controls
from plug_sklearn.evaluation._drawing import (
    BLUE,
    ScoresDisplay,
    name_score,
    write_folds,
    write_name,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.container import BarContainer
    from matplotlib.lines import Line2D

COLUMNS = ("control", "fold", "fit_time")
#: Bars of controls: light, so that the points of folds can be seen on them.
LIGHT = "#BBBBBB"


class ControlsDisplay(ScoresDisplay):
    """Bar plot of the scores of a probe and its controls, with a point for each fold.

    Parameters
    ----------
    table : DataFrame
        What :func:`probe_controls` returns.
    score : str, default=None
        The score to draw, a column of ``table``; None: the first.

    Attributes
    ----------
    table : DataFrame
        As given.
    score : str
        The score that is drawn.
    summary_ : DataFrame
        A row for each control, by its name. Columns: the ``mean`` and standard
        deviation ``std`` of the score over the folds, and ``lead``, the mean score of
        the probe minus that of the control.
    selectivity_ : float or None
        The lead over ``"shuffled_labels"``; None if this control was not run.
    ax_ : Axes
        The axes.
    figure_ : Figure
        Its figure.
    bars_ : BarContainer
        The bars, from top to bottom.
    points_ : Line2D
        The scores of folds.

    See Also
    --------
    probe_controls : Computes the scores.

    Examples
    --------
    >>> import numpy as np
    >>> from plug_sklearn import ControlsDisplay
    >>> from sklearn.linear_model import LogisticRegression
    >>> from plug_sklearn import LayerAggregator
    >>> from sklearn.pipeline import make_pipeline
    >>> y = np.arange(200) % 2
    >>> X = np.random.default_rng(0).normal(size=(200, 3, 1, 8))
    >>> X[:, 1, 0, 0] += 3 * y
    >>> probe = make_pipeline(LayerAggregator(layers=[1]), LogisticRegression())
    >>> display = ControlsDisplay.from_estimator(
    ...     probe, X, y, scoring="roc_auc", random_state=0
    ... )
    >>> round(display.selectivity_, 2)
    0.56
    """

    _compute = staticmethod(probe_controls)
    _columns = COLUMNS

    def __init__(self, table: pd.DataFrame, *, score: str | None = None) -> None:
        super().__init__(table, score=score)
        self.table = table
        grouped = table.groupby("control", sort=False)[self.score]
        self.summary_ = grouped.agg(["mean", "std"])
        if PROBE not in self.summary_.index:
            raise ValueError(
                f"The 'table' parameter of {type(self).__name__} must have rows of "
                f"the control {PROBE!r}. Got {list(self.summary_.index)} instead."
            )
        means = self.summary_["mean"]
        self.summary_["lead"] = means[PROBE] - means
        lead = self.summary_["lead"].get("shuffled_labels")
        self.selectivity_ = None if lead is None else float(lead)
        self._height = 1.2 + 0.35 * len(self.summary_)

    @classmethod
    def from_estimator(  # type: ignore[override]  # its first argument has another name
        cls,
        pipeline: BaseEstimator,
        X: Any,  # noqa: ANN401 - texts or activations
        y: ArrayLike,
        *,
        score: str | None = None,
        ax: Axes | Sequence[Axes] | None = None,
        **options: Any,  # noqa: ANN401 - see probe_controls
    ) -> Self:
        """Run :func:`probe_controls`, and draw its scores.

        Parameters
        ----------
        pipeline, X, y : see below
            The probe, texts or activations, and labels, as in :func:`probe_controls`.
        score : str, default=None
            The score to draw, if there are several; None: the first.
        ax : Axes, default=None
            Where to draw; None: a new figure.
        **options : dict
            Further arguments of :func:`probe_controls`, such as ``cv`` and ``groups``.

        Returns
        -------
        ControlsDisplay
            The display, drawn.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If a parameter is invalid.
        """
        return super().from_estimator(pipeline, X, y, score=score, ax=ax, **options)

    def _draw(self, axes: list[Axes]) -> None:
        (self.ax_,) = axes
        names = list(self.summary_.index)
        means = self.summary_["mean"].to_numpy()
        places = np.arange(len(names))
        self.bars_: BarContainer = self.ax_.barh(
            places,
            means,
            height=0.7,
            color=[BLUE if name == PROBE else LIGHT for name in names],
        )
        at = self.table["control"].map({name: n for n, name in enumerate(names)})
        self.points_: Line2D
        (self.points_,) = self.ax_.plot(
            self.table[self.score], at, "o", markersize=4, color="black", alpha=0.6
        )
        self._write_means(places)
        self.ax_.set_yticks(
            places, [write_name(name_control(name), most=24) for name in names]
        )
        folds = write_folds(self.table["fold"].nunique())
        self.ax_.set_xlabel(
            f"{write_name(name_score(self.score))} (bar: mean; points: {folds})"
        )
        self.ax_.invert_yaxis()

    def _write_means(self, places: np.ndarray[Any, Any]) -> None:
        """Write each mean at the right edge, where there are no bars or points."""
        for place, mean in zip(places, self.summary_["mean"], strict=True):
            self.ax_.annotate(
                "-" if np.isnan(mean) else f"{mean:.2f}",
                (1, place),
                xycoords=("axes fraction", "data"),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                ha="left",
            )


def name_control(name: str) -> str:
    """Turn the name of a control into a label."""
    label = "TF-IDF" if name == "tf_idf" else name.replace("_", " ")
    return label[:1].upper() + label[1:]
