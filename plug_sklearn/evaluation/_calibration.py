"""Calibration errors and Brier scores of probabilities."""

from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from plug_sklearn._sklearn import Interval, StrOptions, validate_parameter_constraints
from plug_sklearn.evaluation._inputs import Predictions, read_predictions

CONSTRAINTS = {
    "n_bins": [Interval(Integral, 1, None, closed="left")],
    "strategy": [StrOptions({"uniform", "quantile"})],
    "method": [StrOptions({"confidence", "positive"})],
    "closed": [StrOptions({"right", "left"})],
}


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
    """Compute the expected calibration error (ECE) of probabilities.

    Samples are put into bins by their probability. In each bin, the mean probability is
    compared with the frequency with which the predicted event occurred. The absolute
    differences are averaged over bins, weighted by their numbers of samples.

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
        counts, except that samples of the same probability share a bin.
    method : {"confidence", "positive"}, default="confidence"
        ``"confidence"``: the probability of the predicted class, compared with how
        often the prediction is right; of classes that tie, the first is predicted.
        ``"positive"``: the probability of the positive one of two classes, compared
        with how often it is the true one, as in reliability diagrams of two classes.
    closed : {"right", "left"}, default="right"
        Which end of a bin is closed. With ``"right"``, a probability of 0.6 is in the
        bin (0.5, 0.6]; with ``"left"``, it is in [0.6, 0.7). 0 is always in the first
        bin, and 1 in the last. A probability that differs from an edge by no more than
        its rounding error counts as the edge.
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
        If a parameter is invalid.

    See Also
    --------
    calibration_bins : The bins it is computed from.
    ReliabilityDisplay : Plots the bins.

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
    binning = (n_bins, strategy, method, closed)
    owner = "expected_calibration_error"
    return bin_rows(owner, y_true, y_proba, binning, labels, pos_label).measure_error()


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
    """Compare mean probabilities with frequencies, bin by bin.

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
        A row for each bin that holds samples. Columns: its edges ``lower`` and
        ``upper``; the number of its samples, ``n_samples``; their mean ``probability``;
        and the ``frequency`` with which the predicted event occurred.

    Raises
    ------
    ValueError
        If a parameter is invalid.

    See Also
    --------
    expected_calibration_error : The mean difference over bins.

    Examples
    --------
    >>> from plug_sklearn import calibration_bins
    >>> calibration_bins([1, 0, 1, 1], [0.9, 0.2, 0.8, 0.3], n_bins=5)
       lower  upper  n_samples  probability  frequency
    0    0.6    0.8          3     0.766667   0.666667
    1    0.8    1.0          1     0.900000   1.000000
    """
    binning = (n_bins, strategy, method, closed)
    owner = "calibration_bins"
    return bin_rows(owner, y_true, y_proba, binning, labels, pos_label).tabulate()


def brier_score(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    pos_label: object = None,
) -> float:
    """Compute the Brier score, the mean squared error of probabilities.

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
        For two classes, the mean squared error of the positive one, in [0, 1]; for
        more, the mean over samples of the sum over classes, in [0, 2]. 0 is best.

    Raises
    ------
    ValueError
        If a parameter is invalid.

    See Also
    --------
    expected_calibration_error : Calibration alone.

    References
    ----------
    Brier, "Verification of forecasts expressed in terms of probability", 1950,
    equation 2; for two classes, half of it, as is usual.

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
    n_classes = len(predictions.labels)
    is_true = predictions.codes[:, None] == np.arange(n_classes)
    errors = is_true - predictions.probabilities.astype(np.float64)
    if n_classes == 2:
        errors = errors[:, 1:]
    return float((errors**2).sum(axis=1).mean())


@dataclass(frozen=True)
class BinnedRows:
    """An event in each sample, and the bin of its probability.

    ``edges`` has shape (n_bins + 1,). ``bins``, ``probability`` and ``happened`` have
    shape (n_samples,): the bin of each sample, the probability of its event, and
    whether the event happened.
    """

    edges: NDArray[np.float64]
    bins: NDArray[np.intp]
    probability: NDArray[np.float64]
    happened: NDArray[np.bool_]

    def measure_error(self) -> float:
        """Compute the expected calibration error."""
        differences = np.bincount(self.bins, self.happened - self.probability)
        return float(abs(differences).sum() / len(self.bins))

    def tabulate(self) -> pd.DataFrame:
        """Make the table that :func:`calibration_bins` returns."""
        counts = np.bincount(self.bins)
        held = np.flatnonzero(counts)
        sums = [
            np.bincount(self.bins, values)[held]
            for values in (self.probability, self.happened)
        ]
        return pd.DataFrame(
            {
                "lower": self.edges[held],
                "upper": self.edges[held + 1],
                "n_samples": counts[held],
                "probability": sums[0] / counts[held],
                "frequency": sums[1] / counts[held],
            }
        )


def bin_rows(
    owner: str,
    y_true: ArrayLike,
    y_proba: ArrayLike,
    binning: tuple[int, str, str, str],
    labels: ArrayLike | None,
    pos_label: object,
) -> BinnedRows:
    """Put samples into bins by the probability of an event in each.

    ``binning`` holds ``n_bins``, ``strategy``, ``method`` and ``closed``. These and the
    other parameters are those of the public function ``owner``.
    """
    given = dict(zip(CONSTRAINTS, binning, strict=True))
    validate_parameter_constraints(CONSTRAINTS, given, caller_name=owner)
    n_bins, strategy, method, closed = binning
    predictions = read_predictions(
        y_true, y_proba, labels=labels, pos_label=pos_label, owner=owner
    )
    probability, happened = _find_events(predictions, method, owner)
    edges, sought = _place_edges(probability, n_bins, strategy)
    # Searched on the left, a probability that is an edge is in the bin below it.
    side: Any = "left" if closed == "right" else "right"
    bins = np.searchsorted(edges[1:-1], sought, side=side)
    return BinnedRows(edges, bins, probability.astype(np.float64), happened)


def _find_events(
    predictions: Predictions, method: str, owner: str
) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """Return the probability of the event in each sample, and whether it happened."""
    probabilities = predictions.probabilities
    if method == "confidence":
        predicted = probabilities.argmax(axis=1)
        return probabilities.max(axis=1), predicted == predictions.codes
    if len(predictions.labels) != 2:
        raise ValueError(
            f"The 'method' parameter of {owner} must be 'confidence' for more than two "
            f"classes. Got {method!r} with {len(predictions.labels)} instead."
        )
    return probabilities[:, 1], predictions.codes == 1


def _place_edges(
    probability: NDArray[np.floating], n_bins: int, strategy: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the edges of the bins, and the values to search for among them."""
    values = probability.astype(np.float64)
    shares = np.arange(n_bins + 1) / n_bins
    if strategy == "quantile":
        return _find_quantiles(np.sort(values), n_bins), values
    # 1 - 0.18 is 0.8200000000000001, and 0.6 in single precision is 0.60000002. Values
    # that differ from an edge by no more than a rounding error count as the edge.
    nearest = shares[np.rint(values * n_bins).astype(np.intp)]
    is_on_edge = abs(values - nearest) <= np.finfo(probability.dtype).eps
    return shares, np.where(is_on_edge, nearest, values)


def _find_quantiles(ordered: NDArray[np.float64], n_bins: int) -> NDArray[np.float64]:
    """Compute ``np.quantile``, without rounding errors for edges that are values.

    ``np.quantile`` may place such an edge just beside the value, since 0.3 times 10 is
    3.0000000000000004 or 2.9999999999999996 depending on the order of operations.
    """
    below, rest = np.divmod(np.arange(n_bins + 1) * (len(ordered) - 1), n_bins)
    above = np.minimum(below + 1, len(ordered) - 1)
    steps: NDArray[np.float64] = ordered[above] - ordered[below]
    return np.asarray(ordered[below] + rest / n_bins * steps)
