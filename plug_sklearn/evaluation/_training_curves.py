"""Trained probes → their losses and scores by epoch, as a table and a picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from plug_sklearn.evaluation._drawing import (
    BLUE,
    VERMILION,
    finish_axes,
    make_axes,
    name_score,
    require_matplotlib,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVES = ("epoch", "train_loss", "valid_loss", "valid_score")
TRAINING = {"color": BLUE, "linestyle": "--", "label": "training"}
VALIDATION = {"color": VERMILION, "linestyle": "-", "label": "validation"}


def training_history(estimators: Any) -> pd.DataFrame:  # noqa: ANN401 - see below
    """Put the epochs of trained probes in a table.

    Parameters
    ----------
    estimators : estimator, sequence of estimators or dict
        A fitted :class:`PlugMLPClassifier` or :class:`PlugCNNClassifier`, alone, in a
        pipeline or as the best of a search; several of them; or what
        :func:`~sklearn.model_selection.cross_validate` returns with
        ``return_estimator=True``.

    Returns
    -------
    DataFrame
        A row for each fit and epoch. Columns: ``fold``, the number of the estimator;
        ``epoch``, from 1; ``train_loss``; ``valid_loss`` and ``valid_score``, what was
        monitored, where rows were held out; ``kept``, whether the weights of the epoch
        are those that predict.

    Raises
    ------
    ValueError
        If an estimator has no history of training.

    See Also
    --------
    TrainingCurveDisplay : The same as a picture.

    Examples
    --------
    >>> import numpy as np
    >>> from plug_sklearn import PlugMLPClassifier, training_history
    >>> y = np.arange(100) % 2
    >>> X = np.random.default_rng(0).normal(size=(100, 4)) + y[:, None]
    >>> probe = PlugMLPClassifier(max_epochs=3, random_state=0).fit(X, y)
    >>> training_history(probe)[["fold", "epoch"]]
       fold  epoch
    0     0      1
    1     0      2
    2     0      3
    """
    frames = []
    for fold, probe in enumerate(_list_probes(estimators)):
        history = pd.DataFrame(probe.history_)
        frame = history[[name for name in CURVES if name in history]].copy()
        frame.insert(0, "fold", fold)
        frame["kept"] = frame["epoch"] == probe.best_epoch_
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def find_trained(estimator: Any) -> Any | None:  # noqa: ANN401 - estimators of any kind
    """Find the probe with a history of training within an estimator.

    Parameters
    ----------
    estimator : estimator
        A probe, or a pipeline or search around it.

    Returns
    -------
    estimator or None
        The probe; None where there is none.
    """
    if isinstance(estimator, Pipeline):
        return find_trained(estimator[-1])
    if hasattr(estimator, "best_estimator_"):
        return find_trained(estimator.best_estimator_)
    is_trained = hasattr(estimator, "history_") and hasattr(estimator, "best_epoch_")
    return estimator if is_trained else None


def _list_probes(estimators: Any) -> Iterator[Any]:  # noqa: ANN401 - as above
    if isinstance(estimators, Mapping):
        if "estimator" not in estimators:
            raise ValueError(
                "The 'estimators' parameter of training_history must hold fitted "
                "estimators, as cross_validate returns them with "
                f"return_estimator=True. Got the keys {list(estimators)} instead."
            )
        estimators = estimators["estimator"]
    # A pipeline has a length and elements too.
    is_one = isinstance(estimators, BaseEstimator)
    for estimator in [estimators] if is_one else estimators:
        probe = find_trained(estimator)
        if probe is None:
            raise ValueError(
                "The 'estimators' parameter of training_history must be fitted "
                "estimators with a history, such as PlugMLPClassifier. Got "
                f"{type(estimator).__name__} instead."
            )
        yield probe


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
        require_matplotlib(f"{cls.__name__}.from_estimator")
        history = training_history(estimator)
        monitor = getattr(next(_list_probes(estimator)), "monitor_", None)
        score_name = name_score(monitor) if isinstance(monitor, str) else None
        return cls(history, score_name=score_name).plot(ax=ax)

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
        for axes in self.ax_:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            finish_axes(axes)
        self.ax_[-1].set(xlabel="Epoch")
        self.ax_[0].legend(frameon=False)
        return self

    def _draw(self, axes: Axes, column: str, style: dict[str, str]) -> list[Any]:
        folds = self.history.dropna(subset=[column]).groupby("fold")
        lines = []
        for number, (_, history) in enumerate(folds):
            shown = style if number == 0 else {**style, "label": None}
            lines += axes.plot(
                history["epoch"], history[column], alpha=0.7, linewidth=1.2, **shown
            )
        if column.startswith("valid"):
            kept = self.history[self.history["kept"]]
            label = "epoch kept" if axes is self.ax_[0] else None
            axes.plot(kept["epoch"], kept[column], "ko", markersize=5, label=label)
        return lines
