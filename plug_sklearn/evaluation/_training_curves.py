"""Losses and scores by epoch → a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import pandas as pd

from plug_sklearn._extras import require_extra
from plug_sklearn.evaluation._drawing import finish_axes, make_axes
from plug_sklearn.evaluation._styles import BLUE, VERMILION
from plug_sklearn.evaluation._tables import check_table
from plug_sklearn.evaluation._training_history import find_probes, tabulate_history
from plug_sklearn.evaluation._wording import name_score

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = ("fold", "epoch", "train_loss", "kept")
TRAINING = {"color": BLUE, "linestyle": "--", "label": "training"}
VALIDATION = {"color": VERMILION, "linestyle": "-", "label": "validation"}


class TrainingCurveDisplay:
    """Loss and monitored score by epoch, a line for each fit.

    Parameters
    ----------
    history : DataFrame
        What :func:`training_history` returns.
    score_name : str, default=None
        Label of the monitored score; None: ``"Validation score"``.

    Attributes
    ----------
    history, score_name
        As given.
    ax_ : list of Axes
        What was drawn on: losses, and below them scores where any were recorded.
    figure_ : Figure
        Their figure.
    lines_ : dict of list of Line2D
        For each of ``train_loss``, ``valid_loss`` and ``valid_score`` that there is, a
        line for each fit.

    See Also
    --------
    training_history : The numbers.
    LayerSweepDisplay : Scores of layers.

    Examples
    --------
    >>> import numpy as np
    >>> from plug_sklearn import PlugMLPClassifier, TrainingCurveDisplay
    >>> from sklearn.model_selection import cross_validate
    >>> y = np.arange(100) % 2
    >>> X = np.random.default_rng(0).normal(size=(100, 4)) + y[:, None]
    >>> probe = PlugMLPClassifier(max_epochs=3, random_state=0)
    >>> results = cross_validate(probe, X, y, return_estimator=True)
    >>> display = TrainingCurveDisplay.from_estimator(results)
    >>> len(display.lines_["train_loss"])
    5
    """

    def __init__(self, history: pd.DataFrame, *, score_name: str | None = None) -> None:
        check_table(
            history, COLUMNS, "history", type(self).__name__, "training_history"
        )
        self.history = history
        self.score_name = score_name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,  # noqa: ANN401 - see training_history
        *,
        ax: Axes | Sequence[Axes] | None = None,
    ) -> Self:
        """Draw the training of estimators that have been fitted.

        Parameters
        ----------
        estimator : estimator, sequence of estimators or dict
            Fitted: one or several, as in :func:`training_history`.
        ax : Axes or sequence of Axes, default=None
            What to draw on: one, which is divided, or two; None: a new figure.

        Returns
        -------
        TrainingCurveDisplay
            The display, drawn.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If an estimator has no history of training.
        """
        require_extra("plots", f"{cls.__name__}.from_estimator")
        probes = find_probes(estimator)
        monitor = getattr(next(iter(probes.values())), "monitor_", None)
        score_name = name_score(monitor) if isinstance(monitor, str) else None
        return cls(tabulate_history(probes), score_name=score_name).plot(ax=ax)

    def plot(self, ax: Axes | Sequence[Axes] | None = None) -> Self:
        """Draw losses and scores.

        Parameters
        ----------
        ax : Axes or sequence of Axes, default=None
            What to draw on: one, which is divided, or two; None: a new figure.

        Returns
        -------
        TrainingCurveDisplay
            This display.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        has_scores = "valid_score" in self.history
        caller = f"{type(self).__name__}.plot"
        self.ax_ = make_axes(ax, 1 + has_scores, caller, height=4.0 + 2.0 * has_scores)
        from matplotlib.ticker import MaxNLocator

        self.figure_ = self.ax_[0].get_figure()
        self.lines_ = {"train_loss": self._draw(self.ax_[0], "train_loss", TRAINING)}
        if "valid_loss" in self.history:
            self.lines_["valid_loss"] = self._draw(
                self.ax_[0], "valid_loss", VALIDATION
            )
        self.ax_[0].set(ylabel="Loss")
        if has_scores:
            lower = self.ax_[1]
            self.lines_["valid_score"] = self._draw(lower, "valid_score", VALIDATION)
            lower.set(ylabel=self.score_name or "Validation score")
        if self.history["epoch"].max() == 1:
            self.ax_[0].set_xlim(0, 2)
        for axes in self.ax_:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            finish_axes(axes)
        self.ax_[-1].set(xlabel="Epoch")
        self.ax_[0].legend(frameon=False)
        return self

    def _draw(self, axes: Axes, column: str, style: dict[str, str]) -> list[Any]:
        folds = self.history.dropna(subset=[column]).groupby("fold")
        lines = []
        for number, (_, history) in enumerate(folds):
            lines += axes.plot(
                history["epoch"],
                history[column],
                alpha=0.7,
                linewidth=1.2,
                # A line of one epoch is a point.
                marker="s" if len(history) == 1 else None,
                markersize=7,
                **(style if number == 0 else {**style, "label": None}),
            )
        if column.startswith("valid"):
            kept = self.history[self.history["kept"]]
            label = "epoch kept" if axes is self.ax_[0] else None
            axes.plot(kept["epoch"], kept[column], "ko", markersize=5, label=label)
        return lines
