"""Probabilities against frequencies → a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.calibration import CalibrationDisplay

from plug_sklearn.evaluation._bins import bin_rows, measure_gap, tabulate_bins
from plug_sklearn.evaluation._drawing import (
    add_legend,
    check_axes,
    finish_axes,
    make_axes,
)
from plug_sklearn.evaluation._probabilities import refuse_without_probabilities
from plug_sklearn.evaluation._styles import style_line
from plug_sklearn.evaluation._tables import check_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = ("probability", "frequency")
#: What scikit-learn calls the line on which a perfectly calibrated curve would lie.
REFERENCE = "Perfectly calibrated"


class ReliabilityDisplay(CalibrationDisplay):
    """Scikit-learn's calibration diagram, for any number of classes, with its error.

    Parameters
    ----------
    bins : DataFrame
        What :func:`calibration_bins` returns.
    ece : float
        What :func:`expected_calibration_error` returns, for the legend.
    y_prob : ndarray of shape (n_samples,), default=None
        The probabilities in the bins.
    estimator_name : str, default=None
        Name for the legend.
    method : {"confidence", "positive"}, default="confidence"
        What the probabilities are of.
    pos_label : object, default=None
        The positive one of two labels, for the axes' labels.

    Attributes
    ----------
    bins, ece, y_prob, estimator_name, method, pos_label
        As given.
    prob_true, prob_pred : ndarray of shape (n_bins,)
        Frequency and mean probability of each bin.
    line_ : Line2D
        The curve.
    ax_ : Axes
        What was drawn on.
    figure_ : Figure
        Its figure.

    See Also
    --------
    expected_calibration_error : The number alone.
    sklearn.calibration.CalibrationDisplay : What it extends.

    Examples
    --------
    >>> import numpy as np
    >>> from plug_sklearn import ReliabilityDisplay
    >>> rng = np.random.default_rng(0)
    >>> probabilities = rng.dirichlet(np.ones(3), size=1000)
    >>> y = [rng.choice(3, p=row) for row in probabilities]
    >>> display = ReliabilityDisplay.from_predictions(y, probabilities, name="honest")
    >>> display.line_.get_label()
    'honest (ECE = 0.019)'
    """

    def __init__(
        self,
        bins: pd.DataFrame,
        ece: float,
        *,
        y_prob: ArrayLike | None = None,
        estimator_name: str | None = None,
        method: str = "confidence",
        pos_label: object = None,
    ) -> None:
        check_table(bins, COLUMNS, "bins", type(self).__name__, "calibration_bins")
        super().__init__(
            prob_true=bins["frequency"].to_numpy(),
            prob_pred=bins["probability"].to_numpy(),
            y_prob=y_prob,
            estimator_name=estimator_name,
            pos_label=pos_label,
        )
        self.bins = bins
        self.ece = ece
        self.method = method

    def plot(
        self,
        *,
        ax: Axes | None = None,
        name: str | None = None,
        ref_line: bool = True,
        **kwargs: Any,  # noqa: ANN401 - matplotlib's
    ) -> Self:
        """Draw the diagram.

        Parameters
        ----------
        ax : Axes, default=None
            What to draw on; None: a new figure.
        name : str, default=None
            Name for the legend; None: ``estimator_name``.
        ref_line : bool, default=True
            Whether to draw where perfect calibration would lie.
        **kwargs : dict
            Given to matplotlib's ``plot``. Curves on the same axes differ without it.

        Returns
        -------
        ReliabilityDisplay
            This display.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        (axes,) = make_axes(ax, 1, f"{type(self).__name__}.plot", height=5.0)
        from matplotlib.cbook import normalize_kwargs
        from matplotlib.lines import Line2D

        name = self.estimator_name if name is None else name
        error = f"ECE = {self.ece:.3f}"
        label = error if name is None else f"{name} ({error})"
        n_curves = sum(line.get_label() != REFERENCE for line in axes.lines)
        style = {**style_line(n_curves), **normalize_kwargs(kwargs, Line2D)}
        super().plot(ax=axes, name=label, ref_line=ref_line, **style)
        if self.method == "confidence":
            axes.set(
                xlabel="Mean probability of the predicted class",
                ylabel="Fraction of predictions that are right",
            )
        finish_axes(axes)
        add_legend(axes)
        return self

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_proba: ArrayLike,
        *,
        n_bins: int = 10,
        strategy: str = "uniform",
        method: str | None = None,
        closed: str = "right",
        labels: ArrayLike | None = None,
        pos_label: object = None,
        name: str | None = None,
        ax: Axes | None = None,
        ref_line: bool = True,
        **kwargs: Any,  # noqa: ANN401 - matplotlib's
    ) -> Self:
        """Draw the diagram of labels and probabilities.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            True labels.
        y_proba : array-like of shape (n_samples,) or (n_samples, n_classes)
            Probabilities of the positive class, or of each class.
        n_bins, strategy, method, closed, labels, pos_label : see below
            As in :func:`expected_calibration_error`, for the diagram and for the error
            in its legend. Without a ``method``, ``"positive"`` for two classes, as
            scikit-learn draws them, and ``"confidence"`` for more.
        name : str, default=None
            Name for the legend.
        ax, ref_line, **kwargs : see below
            As in :meth:`plot`.

        Returns
        -------
        ReliabilityDisplay
            The display, drawn.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If a parameter is not what it must be.
        """
        caller = f"{cls.__name__}.from_predictions"
        check_axes(ax, 1, caller)
        probabilities = np.asarray(y_proba)
        is_binary = probabilities.ndim < 2 or probabilities.shape[1] == 2
        if method is None:
            method = "positive" if is_binary else "confidence"
        binned = bin_rows(
            y_true,
            probabilities,
            n_bins=n_bins,
            strategy=strategy,
            method=method,
            closed=closed,
            labels=labels,
            pos_label=pos_label,
            owner=caller,
        )
        display = cls(
            tabulate_bins(binned),
            measure_gap(binned),
            y_prob=binned.probability,
            estimator_name=name,
            method=method,
            pos_label=pos_label,
        )
        return display.plot(ax=ax, ref_line=ref_line, **kwargs)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,  # noqa: ANN401 - a classifier of any kind
        X: Any,  # noqa: ANN401 - whatever it takes
        y: ArrayLike,
        *,
        n_bins: int = 10,
        strategy: str = "uniform",
        method: str | None = None,
        closed: str = "right",
        pos_label: object = None,
        name: str | None = None,
        ax: Axes | None = None,
        ref_line: bool = True,
        **kwargs: Any,  # noqa: ANN401 - matplotlib's
    ) -> Self:
        """Draw the diagram of a fitted classifier, on rows it was not fitted on.

        Parameters
        ----------
        estimator : classifier
            Fitted.
        X, y : array-like of shape (n_samples, ...)
            Rows and their labels.
        n_bins, strategy, method, closed, pos_label : see below
            As in :meth:`from_predictions`.
        name : str, default=None
            Name for the legend; None: that of the estimator's class.
        ax, ref_line, **kwargs : see below
            As in :meth:`plot`.

        Returns
        -------
        ReliabilityDisplay
            The display, drawn.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If a parameter is not what it must be.
        """
        caller = f"{cls.__name__}.from_estimator"
        check_axes(ax, 1, caller)
        refuse_without_probabilities(estimator, caller)
        return cls.from_predictions(
            y,
            estimator.predict_proba(X),
            n_bins=n_bins,
            strategy=strategy,
            method=method,
            closed=closed,
            labels=estimator.classes_,
            pos_label=pos_label,
            name=type(estimator).__name__ if name is None else name,
            ax=ax,
            ref_line=ref_line,
            **kwargs,
        )
