"""Losses and scores of networks by epoch, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from plug_sklearn._packages import require_extra
from plug_sklearn.evaluation._drawing import (
    BLUE,
    VERMILION,
    Display,
    name_score,
    write_name,
)
from plug_sklearn.evaluation._folds import check_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVES = ("epoch", "train_loss", "valid_loss", "valid_score")
COLUMNS = ("fold", "epoch", "train_loss", "kept")
TRAINING = {"color": BLUE, "linestyle": "--", "label": "training"}
VALIDATION = {"color": VERMILION, "linestyle": "-", "label": "validation"}


def training_history(estimators: Any) -> pd.DataFrame:  # noqa: ANN401 - see below
    """Collect the losses and scores of fitted probes, by epoch, in a table.

    Parameters
    ----------
    estimators : estimator, sequence of estimators or dict
        A fitted :class:`PlugMLPClassifier`, :class:`PlugCNNClassifier` or
        :class:`PlugTokenClassifier`, alone, in a pipeline or as the best of a search;
        several of them; or what :func:`~sklearn.model_selection.cross_validate` returns
        with ``return_estimator=True``. An estimator whose fit failed has no rows. A
        failed fit may be given as None, as in a report, or as an estimator of the same
        class without a history.

    Returns
    -------
    DataFrame
        A row for each fit and epoch. Columns: ``fold``, the position of the estimator;
        ``epoch``, from 1; ``train_loss``; ``valid_loss`` and the monitored
        ``valid_score``, where samples were held out; ``kept``, whether the estimator
        has the weights of this epoch.

    Raises
    ------
    ValueError
        If an estimator has no history of training.

    See Also
    --------
    TrainingCurveDisplay : Plots this table.

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
    return tabulate_history(find_probes(estimators))


def tabulate_history(probes: Mapping[int, Any]) -> pd.DataFrame:
    """Collect the history of probes, given by fold, in a table."""
    frames = []
    for fold, probe in probes.items():
        history = pd.DataFrame(probe.history_)
        frame = history[[name for name in CURVES if name in history]].copy()
        frame.insert(0, "fold", fold)
        frame["kept"] = frame["epoch"] == probe.best_epoch_
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def find_trained(estimator: Any) -> Any | None:  # noqa: ANN401 - estimators of any kind
    """Return the probe with a history in a pipeline or search; None without one."""
    if isinstance(estimator, Pipeline):
        return find_trained(estimator[-1])
    if hasattr(estimator, "best_estimator_"):
        return find_trained(estimator.best_estimator_)
    is_trained = hasattr(estimator, "history_") and hasattr(estimator, "best_epoch_")
    return estimator if is_trained else None


def find_probes(estimators: Any) -> dict[int, Any]:  # noqa: ANN401 - as above
    """Return the probes with a history, by the positions of their estimators."""
    if isinstance(estimators, Mapping):
        if "estimator" not in estimators:
            raise ValueError(
                "The 'estimators' parameter of training_history must contain the key "
                "'estimator', as the results of cross_validate with "
                f"return_estimator=True do. Got the keys {list(estimators)} instead."
            )
        estimators = estimators["estimator"]
    # A pipeline is iterable too.
    is_one = isinstance(estimators, BaseEstimator) or not isinstance(
        estimators, Iterable
    )
    given = [estimators] if is_one else list(estimators)
    trained = {fold: find_trained(one) for fold, one in enumerate(given)}
    probes = {fold: probe for fold, probe in trained.items() if probe is not None}
    # If one has a history, others of its class have none because their fit failed.
    failed = {type(None), *(type(given[fold]) for fold in probes)} if probes else set()
    without = [
        type(one).__name__
        for fold, one in enumerate(given)
        if fold not in probes and type(one) not in failed
    ]
    if without or not probes:
        found = f"{without[0]} without one" if without else "none"
        raise ValueError(
            "The 'estimators' parameter of training_history must be fitted estimators "
            f"with a history of training, such as PlugMLPClassifier. Got {found}."
        )
    return probes


class TrainingCurveDisplay(Display):
    """Plot of the losses and the monitored score by epoch, with a line for each fit.

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
        The axes of the losses, and below them those of the scores, if there are any.
    figure_ : Figure
        Their figure.
    lines_ : dict of list of Line2D
        The lines of all fits, under ``train_loss``, ``valid_loss`` and
        ``valid_score``.

    See Also
    --------
    training_history : Computes the numbers.
    LayerSweepDisplay : Plots the scores of layers.

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
        self._n_plots = 1 + ("valid_score" in history)
        self._height = 2.0 + 2.0 * self._n_plots

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,  # noqa: ANN401 - see training_history
        *,
        ax: Axes | Sequence[Axes] | None = None,
    ) -> Self:
        """Draw the losses and scores of fitted estimators.

        Parameters
        ----------
        estimator : estimator, sequence of estimators or dict
            One or several fitted estimators, as in :func:`training_history`.
        ax : Axes or sequence of Axes, default=None
            Where to draw: two Axes, or one to be divided; None: a new figure.

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

    def _draw(self, axes: list[Axes]) -> None:
        from matplotlib.ticker import MaxNLocator

        self.ax_ = axes
        self.lines_ = {"train_loss": self._draw_lines(axes[0], "train_loss", TRAINING)}
        for column, own in (("valid_loss", axes[0]), ("valid_score", axes[-1])):
            if column in self.history:
                self.lines_[column] = self._draw_lines(own, column, VALIDATION)
        axes[0].set(ylabel="Loss")
        if len(axes) > 1:
            label = write_name(self.score_name or "Validation score", most=24)
            axes[1].set(ylabel=label)
        if self.history["epoch"].max() == 1:
            axes[0].set_xlim(0, 2)
        for one in axes:
            one.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes[-1].set(xlabel="Epoch")
        axes[0].legend(frameon=False)

    def _draw_lines(self, axes: Axes, column: str, style: dict[str, str]) -> list[Any]:
        folds = self.history.dropna(subset=[column]).groupby("fold")
        lines = []
        for number, (_, history) in enumerate(folds):
            lines += axes.plot(
                history["epoch"],
                history[column],
                alpha=0.7,
                linewidth=1.2,
                # A line of one epoch would not be visible.
                marker="s" if len(history) == 1 else None,
                markersize=7,
                **(style if number == 0 else {**style, "label": None}),
            )
        if column.startswith("valid"):
            kept = self.history[self.history["kept"]]
            label = "epoch kept" if axes is self.ax_[0] else None
            axes.plot(kept["epoch"], kept[column], "ko", markersize=5, label=label)
        return lines
