"""Scores of two probes on the same folds → whether one is better."""

from dataclasses import dataclass
from numbers import Real

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils._param_validation import Interval, validate_parameter_constraints

#: What the level of an interval may be.
LEVEL = [Interval(Real, 0, 1, closed="neither")]


@dataclass(frozen=True)
class ProbeComparison:
    """The difference of two probes in a score, and how sure it is.

    Parameters
    ----------
    first, second : float
        Mean scores over the folds.
    difference : float
        The first's less the second's.
    lower, upper : float
        Ends of the interval of the difference.
    level : float
        Probability that the interval aims to cover.
    standard_error : float
        Corrected standard error of the difference.
    statistic : float
        The difference in standard errors.
    degrees_of_freedom : int
        Folds less 1.
    pvalue : float
        Probability of such a difference or a larger one, to either side, between
        probes that are equally good.
    """

    first: float
    second: float
    difference: float
    lower: float
    upper: float
    level: float
    standard_error: float
    statistic: float
    degrees_of_freedom: int
    pvalue: float

    def __str__(self) -> str:
        return (
            f"{self.difference:+.3f} [{self.lower:+.3f}, {self.upper:+.3f}], "
            f"p = {self.pvalue:.2g}"
        )


def compare_scores(
    first: ArrayLike,
    second: ArrayLike,
    *,
    n_train: float,
    n_test: float,
    level: float = 0.95,
) -> ProbeComparison:
    """Test a difference over folds: the corrected resampled t-test.

    Training sets of folds overlap, and so scores of folds are not independent: the
    ordinary t-test finds differences where there are none. The correction widens the
    variance of the mean over J folds from 1/J of the folds' variance s² to
    (1/J + n_test/n_train) s².

    Parameters
    ----------
    first, second : array-like of shape (n_folds,)
        Scores of two probes on the same folds, such as columns of two
        ``CrossValidationReport.scores``.
    n_train, n_test : float
        Rows that a fold trains on, and is tested on; the mean, where folds differ.
    level : float, default=0.95
        Probability that the interval is to cover, in (0, 1).

    Returns
    -------
    ProbeComparison
        The difference, its interval and its test. Where all folds differ by the same,
        the interval is that difference, and ``pvalue`` 1 if it is 0 and 0 otherwise.

    Raises
    ------
    ValueError
        If there are fewer than two folds, or a score is not finite.

    See Also
    --------
    compare_probes : Fits the probes too.

    References
    ----------
    Nadeau and Bengio, "Inference for the Generalization Error", Machine Learning 52,
    2003: the corrected resampled t-test. For repeated cross-validation: Bouckaert and
    Frank, "Evaluating the Replicability of Significance Tests for Comparing Learning
    Algorithms", 2004.

    Examples
    --------
    >>> from plug_sklearn import compare_scores
    >>> print(compare_scores([0.9, 0.8, 0.9], [0.7, 0.7, 0.6], n_train=80, n_test=40))
    +0.200 [-0.193, +0.593], p = 0.16
    """
    owner = "compare_scores"
    validate_parameter_constraints(
        {
            "n_train": [Interval(Real, 0, None, closed="neither")],
            "n_test": [Interval(Real, 0, None, closed="neither")],
            "level": LEVEL,
        },
        {"n_train": n_train, "n_test": n_test, "level": level},
        caller_name=owner,
    )
    pair = _read_pair(first, second, owner)
    differences = pair[0] - pair[1]
    # What rounding leaves of equal scores, or of equal differences, is no difference.
    rounding = 1e-12 * np.abs(pair).max()
    differences[abs(differences) <= rounding] = 0
    mean, n_folds = float(differences.mean()), len(differences)
    variance = (1 / n_folds + n_test / n_train) * differences.var(ddof=1)
    error = float(np.sqrt(variance))
    if error <= rounding:
        error = 0.0
    statistic = (
        mean / error if error else float(np.sign(mean)) * np.inf if mean else 0.0
    )
    half = float(stats.t.ppf((1 + level) / 2, n_folds - 1)) * error
    return ProbeComparison(
        first=float(pair[0].mean()),
        second=float(pair[1].mean()),
        difference=mean,
        lower=mean - half,
        upper=mean + half,
        level=level,
        standard_error=error,
        statistic=statistic,
        degrees_of_freedom=n_folds - 1,
        pvalue=float(2 * stats.t.sf(abs(statistic), n_folds - 1)),
    )


def _read_pair(
    first: ArrayLike, second: ArrayLike, owner: str
) -> list[NDArray[np.float64]]:
    pair = [column_or_1d(scores).astype(np.float64) for scores in (first, second)]
    check_consistent_length(*pair)
    if len(pair[0]) < 2 or not np.isfinite(pair).all():
        raise ValueError(
            f"The 'first' and 'second' parameters of {owner} must be finite scores of "
            f"two folds or more. Got {pair[0].tolist()} and {pair[1].tolist()} instead."
        )
    return pair
