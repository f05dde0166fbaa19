"""Probabilities → bins, and whether what they are the probabilities of came true."""

from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.utils._param_validation import (
    Interval,
    StrOptions,
    validate_parameter_constraints,
)

from plug_sklearn.evaluation._probabilities import Predictions, read_predictions


@dataclass(frozen=True)
class BinnedRows:
    """An event in each row, and the bin of its probability.

    Attributes
    ----------
    edges : ndarray of shape (n_bins + 1,), float64
        Edges of the bins.
    bins : ndarray of shape (n_samples,), int
        Bin of each row.
    probability : ndarray of shape (n_samples,), float64
        Of the event.
    came_true : ndarray of shape (n_samples,), bool
        Whether it came true.
    """

    edges: NDArray[np.float64]
    bins: NDArray[np.intp]
    probability: NDArray[np.float64]
    came_true: NDArray[np.bool_]


def bin_rows(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    *,
    n_bins: int,
    strategy: str,
    method: str,
    closed: str,
    labels: ArrayLike | None,
    pos_label: object,
    owner: str,
) -> BinnedRows:
    """Put rows into bins, by the probability of an event in each.

    Parameters
    ----------
    y_true, y_proba, n_bins, strategy, method, closed, labels, pos_label
        As in :func:`expected_calibration_error`.
    owner : str
        Name of the function that needs them, for messages.

    Returns
    -------
    BinnedRows
        In the order given.

    Raises
    ------
    ValueError
        If a parameter is not what it must be.
    """
    _check_parameters(owner, n_bins, strategy, method, closed)
    predictions = read_predictions(
        y_true, y_proba, labels=labels, pos_label=pos_label, owner=owner
    )
    probability, came_true = _find_outcomes(predictions, method, owner)
    edges, sought = _place_edges(probability, n_bins, strategy)
    # Sought on the left, a probability that is an edge finds the bin below it.
    side: Any = "left" if closed == "right" else "right"
    bins = np.searchsorted(edges[1:-1], sought, side=side)
    return BinnedRows(edges, bins, probability.astype(np.float64), came_true)


def _check_parameters(
    owner: str, n_bins: int, strategy: str, method: str, closed: str
) -> None:
    validate_parameter_constraints(
        {
            "n_bins": [Interval(Integral, 1, None, closed="left")],
            "strategy": [StrOptions({"uniform", "quantile"})],
            "method": [StrOptions({"confidence", "positive"})],
            "closed": [StrOptions({"right", "left"})],
        },
        {
            "n_bins": n_bins,
            "strategy": strategy,
            "method": method,
            "closed": closed,
        },
        caller_name=owner,
    )


def _find_outcomes(
    predictions: Predictions, method: str, owner: str
) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """Find the probability of an event in each row, and whether it came true."""
    probabilities = predictions.probabilities
    if method == "confidence":
        predicted = probabilities.argmax(axis=1)
        return probabilities.max(axis=1), predicted == predictions.codes
    if not predictions.is_binary:
        raise ValueError(
            f"The 'method' parameter of {owner} must be 'confidence' for more than two "
            f"classes. Got {method!r} with {len(predictions.labels)} instead."
        )
    return probabilities[:, 1], predictions.codes == 1


def _place_edges(
    probability: NDArray[np.floating], n_bins: int, strategy: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Place the edges of bins; also give what to seek among them."""
    values = probability.astype(np.float64)
    shares = np.arange(n_bins + 1) / n_bins
    if strategy == "quantile":
        return _find_quantiles(np.sort(values), n_bins), values
    # 1 - 0.18 is 0.8200000000000001, and 0.6 in single precision is 0.60000002: what
    # is as near to an edge as rounding can bring it lies on the edge.
    nearest = shares[np.rint(values * n_bins).astype(np.intp)]
    is_on_edge = abs(values - nearest) <= np.finfo(probability.dtype).eps
    return shares, np.where(is_on_edge, nearest, values)


def _find_quantiles(ordered: NDArray[np.float64], n_bins: int) -> NDArray[np.float64]:
    """Interpolate as ``np.quantile``, save that an edge on a value is that value.

    There, 0.3 of 10 steps is 3.0000000000000004 of them or 2.9999999999999996, and the
    value falls on either side.
    """
    below, rest = np.divmod(np.arange(n_bins + 1) * (len(ordered) - 1), n_bins)
    above = np.minimum(below + 1, len(ordered) - 1)
    steps: NDArray[np.float64] = ordered[above] - ordered[below]
    return np.asarray(ordered[below] + rest / n_bins * steps)


def measure_gap(binned: BinnedRows) -> float:
    """Average the difference of probability and frequency over bins.

    Parameters
    ----------
    binned : BinnedRows
        Rows in bins.

    Returns
    -------
    float
        The calibration error, weighted by rows.
    """
    gaps = np.bincount(binned.bins, binned.came_true - binned.probability)
    return float(abs(gaps).sum() / len(binned.bins))


def tabulate_bins(binned: BinnedRows) -> pd.DataFrame:
    """Set probability against frequency, bin by bin.

    Parameters
    ----------
    binned : BinnedRows
        Rows in bins.

    Returns
    -------
    DataFrame
        As :func:`calibration_bins` describes it.
    """
    counts = np.bincount(binned.bins)
    held = np.flatnonzero(counts)
    sums = [
        np.bincount(binned.bins, values)[held]
        for values in (binned.probability, binned.came_true)
    ]
    return pd.DataFrame(
        {
            "lower": binned.edges[held],
            "upper": binned.edges[held + 1],
            "n_samples": counts[held],
            "probability": sums[0] / counts[held],
            "frequency": sums[1] / counts[held],
        }
    )
