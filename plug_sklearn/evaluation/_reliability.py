"""Reliability diagrams, with the calibration error in the legend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.calibration import CalibrationDisplay

from plug_sklearn.evaluation._calibration import bin_rows
from plug_sklearn.evaluation._drawing import (
    add_legend,
    check_axes,
    finish_axes,
    make_axes,
    style_line,
    write_name,
)
from plug_sklearn.evaluation._folds import check_table
from plug_sklearn.evaluation._inputs import check_probabilistic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = ("probability", "frequency")
#: Label of scikit-learn's diagonal line.
REFERENCE = "Perfectly calibrated"


class ReliabilityDisplay(CalibrationDisplay):
    """Reliability diagram for any number of classes, with the calibration error.

    Parameters
    ----------
    bins : DataFrame
        What :func:`calibration_bins` returns.
    ece : float
        Calibration error for the legend, as :func:`expected_calibration_error` returns
        it.
    y_prob : ndarray of shape (n_samples,), default=None
        The probabilities that are in the bins.
    estimator_name : str, default=None
        Name for the legend.
    method : {"confidence", "positive"}, default="confidence"
        Whether the probabilities are those of the predicted or of the positive class.
    pos_label : object, default=None
        The positive class, as named in the axis labels; only for two classes.

    Attributes
    ----------
    bins, ece, y_prob, estimator_name, method, pos_label
        As given.
    prob_true, prob_pred : ndarray of shape (n_bins,)
        Frequency and mean probability of each bin.
    line_ : Line2D
        The curve.
    ax_ : Axes
        The axes.
    figure_ : Figure
        Its figure.

    See Also
    --------
    expected_calibration_error : Computes the number alone.
    sklearn.calibration.CalibrationDisplay : The base class, for two classes.

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
            Where to draw; None: a new figure.
        name : str, default=None
            Name for the legend; None: ``estimator_name``.
        ref_line : bool, default=True
            Whether to draw the diagonal of perfect calibration.
        **kwargs : dict
            Passed to matplotlib's ``plot``. By default, each curve on the same axes
            has a style of its own.

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
        label = error if name is None else f"{write_name(name)} ({error})"
        n_curves = sum(line.get_label() != REFERENCE for line in axes.lines)
        style = {**style_line(n_curves), **normalize_kwargs(kwargs, Line2D)}
        super().plot(ax=axes, name=label, ref_line=ref_line, **style)
        if self.method == "confidence":
            axes.set(
                xlabel="Mean probability of the predicted class",
                ylabel="Fraction of predictions that are right",
            )
        else:
            positive = str(self.pos_label)
            for text in (axes.xaxis.label, axes.yaxis.label):
                shown = write_name(positive, most=20)
                text.set_text(text.get_text().replace(positive, shown))
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
        """Draw the diagram of given labels and probabilities.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            True labels.
        y_proba : array-like of shape (n_samples,) or (n_samples, n_classes)
            Probabilities of the positive class, or of each class.
        n_bins, strategy, method, closed, labels, pos_label : see below
            As in :func:`expected_calibration_error`. The default ``method`` is
            ``"positive"`` for two classes, as in scikit-learn, and ``"confidence"`` for
            more.
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
            If a parameter is invalid.
        """
        owner = f"{cls.__name__}.from_predictions"
        check_axes(ax, 1, owner)
        probabilities = np.asarray(y_proba)
        if method is None:
            is_binary = probabilities.ndim < 2 or probabilities.shape[1] == 2
            method = "positive" if is_binary else "confidence"
        binning = (n_bins, strategy, method, closed)
        rows = bin_rows(owner, y_true, probabilities, binning, labels, pos_label)
        display = cls(
            rows.tabulate(),
            rows.measure_error(),
            y_prob=rows.probability,
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
        name: str | None = None,
        ax: Axes | None = None,
        **kwargs: Any,  # noqa: ANN401 - see from_predictions
    ) -> Self:
        """Draw the diagram of a fitted classifier, for samples it was not fitted on.

        Parameters
        ----------
        estimator : classifier
            A fitted classifier.
        X, y : array-like of shape (n_samples, ...)
            Samples and their labels.
        name : str, default=None
            Name for the legend; None: that of the estimator's class.
        ax : Axes, default=None
            Where to draw; None: a new figure.
        **kwargs : dict
            Further arguments of :meth:`from_predictions`, such as ``n_bins``.

        Returns
        -------
        ReliabilityDisplay
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
        check_probabilistic(estimator, owner, is_fitted=True)
        return cls.from_predictions(
            y,
            estimator.predict_proba(X),
            labels=estimator.classes_,
            name=type(estimator).__name__ if name is None else name,
            ax=ax,
            **kwargs,
        )
