"""Probabilities → how well they are calibrated, in numbers."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from plug_sklearn.evaluation._bins import bin_rows, measure_gap, tabulate_bins
from plug_sklearn.evaluation._probabilities import read_predictions


def expected_calibration_error(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    *,
    n_bins: int = 10,
    strategy: str = "uniform",
    method: str = "confidence",
    closed: str = "right",
    labels: ArrayLike | None = None,
    pos_label: object = None,
) -> float:
    """Measure how far probabilities are from frequencies, over bins.

    In each bin, the mean probability is set against how often what it was the
    probability of came true; the differences are averaged, weighted by rows.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels.
    y_proba : array-like of shape (n_samples,) or (n_samples, n_classes)
        Probabilities of the positive class, or of each class.
    n_bins : int, default=10
        Number of bins.
    strategy : {"uniform", "quantile"}, default="uniform"
        ``"uniform"``: bins of equal width over [0, 1]. ``"quantile"``: bins of equal
        counts, save that rows of the same probability share a bin.
    method : {"confidence", "positive"}, default="confidence"
        ``"confidence"``: the probability of the predicted class, against how often it
        is the true one; the first of classes that tie is predicted. ``"positive"``:
        the probability of the positive one of two classes, against how often it is the
        true one, as reliability diagrams of two classes show.
    closed : {"right", "left"}, default="right"
        The side of a bin that belongs to it: with ``"right"``, bins are (0.5, 0.6] and
        so on, and a probability of 0.6 lies below the edge; with ``"left"``, [0.6, 0.7)
        holds it. 0 is always in the first bin, and 1 in the last. What rounding in the
        probabilities' own precision can take off an edge is on it.
    labels : array-like of shape (n_classes,), default=None
        Labels in the order of the columns of ``y_proba``; None: those of ``y_true``,
        sorted.
    pos_label : object, default=None
        The positive one of two labels; None: the second.

    Returns
    -------
    float
        In [0, 1]; 0 is best.

    Raises
    ------
    ValueError
        If a parameter is not what it must be.

    See Also
    --------
    calibration_bins : The bins it is computed from.
    ReliabilityDisplay : The same as a picture.

    References
    ----------
    Guo et al., "On Calibration of Modern Neural Networks", 2017, equation 3,
    with bins closed on the right. Bins of equal counts: Nixon et al., "Measuring
    Calibration in Deep Learning", 2019, the adaptive calibration error.

    Examples
    --------
    >>> from plug_sklearn import expected_calibration_error
    >>> round(expected_calibration_error([1, 0, 1, 1], [0.9, 0.2, 0.8, 0.3]), 3)
    0.3
    """
    binned = bin_rows(
        y_true,
        y_proba,
        n_bins=n_bins,
        strategy=strategy,
        method=method,
        closed=closed,
        labels=labels,
        pos_label=pos_label,
        owner="expected_calibration_error",
    )
    return measure_gap(binned)


def calibration_bins(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    *,
    n_bins: int = 10,
    strategy: str = "uniform",
    method: str = "confidence",
    closed: str = "right",
    labels: ArrayLike | None = None,
    pos_label: object = None,
) -> pd.DataFrame:
    """Set probabilities against frequencies, bin by bin.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels.
    y_proba : array-like of shape (n_samples,) or (n_samples, n_classes)
        Probabilities of the positive class, or of each class.
    n_bins, strategy, method, closed, labels, pos_label : see below
        As in :func:`expected_calibration_error`.

    Returns
    -------
    DataFrame
        One bin a row, without those that hold no sample: its edges ``lower`` and
        ``upper``; ``n_samples`` in it; their mean ``probability``; and the
        ``frequency`` at which what it was the probability of came true.

    Raises
    ------
    ValueError
        If a parameter is not what it must be.

    See Also
    --------
    expected_calibration_error : Their mean difference.

    Examples
    --------
    >>> from plug_sklearn import calibration_bins
    >>> calibration_bins([1, 0, 1, 1], [0.9, 0.2, 0.8, 0.3], n_bins=5)
       lower  upper  n_samples  probability  frequency
    0    0.6    0.8          3     0.766667   0.666667
    1    0.8    1.0          1     0.900000   1.000000
    """
    binned = bin_rows(
        y_true,
        y_proba,
        n_bins=n_bins,
        strategy=strategy,
        method=method,
        closed=closed,
        labels=labels,
        pos_label=pos_label,
        owner="calibration_bins",
    )
    return tabulate_bins(binned)


def brier_score(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    pos_label: object = None,
) -> float:
    """Measure the squared distance of probabilities from what came true.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels.
    y_proba : array-like of shape (n_samples,) or (n_samples, n_classes)
        Probabilities of the positive class, or of each class.
    labels : array-like of shape (n_classes,), default=None
        Labels in the order of the columns of ``y_proba``; None: those of ``y_true``,
        sorted.
    pos_label : object, default=None
        The positive one of two labels; None: the second.

    Returns
    -------
    float
        Of two classes, the mean square of the positive one's error, in [0, 1]; of more,
        the mean over rows of the sum over classes, in [0, 2]. 0 is best.

    Raises
    ------
    ValueError
        If a parameter is not what it must be.

    See Also
    --------
    expected_calibration_error : Calibration alone.

    References
    ----------
    Brier, "Verification of forecasts expressed in terms of probability", 1950,
    equation 2; for two classes, half of it, as is the custom.

    Examples
    --------
    >>> from plug_sklearn import brier_score
    >>> round(brier_score([1, 0], [0.9, 0.2]), 3)
    0.025
    >>> round(brier_score([0, 1, 2], [[0.8, 0.2, 0], [0, 1, 0], [0, 0, 1]]), 3)
    0.027
    """
    predictions = read_predictions(
        y_true, y_proba, labels=labels, pos_label=pos_label, owner="brier_score"
    )
    came_true = predictions.codes[:, None] == np.arange(len(predictions.labels))
    errors = came_true - predictions.probabilities.astype(np.float64)
    if predictions.is_binary:
        errors = errors[:, 1:]
    return float((errors**2).sum(axis=1).mean())
