"""Bootstrap intervals of a metric, or of the difference of two models in it."""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.parallel import Parallel, delayed

from plug_sklearn._sklearn import Interval, validate_parameter_constraints
from plug_sklearn.evaluation._inputs import check_groups

Metric = Callable[[NDArray[Any], NDArray[Any]], float]
Rows = list[NDArray[np.intp]]

#: Resamples of one job of joblib.
CHUNK = 250


@dataclass(frozen=True)
class BootstrapInterval:
    """Estimate of a metric with its bootstrap interval.

    Parameters
    ----------
    estimate : float
        The metric on all samples. With two models, the metric of the first minus that
        of the second.
    lower, upper : float
        Ends of the interval.
    standard_error : float
        Standard deviation over the resamples.
    level : float
        Confidence level of the interval.
    """

    estimate: float
    lower: float
    upper: float
    standard_error: float
    level: float

    def __str__(self) -> str:
        return f"{self.estimate:.3f} [{self.lower:.3f}, {self.upper:.3f}]"


def bootstrap_interval(
    metric: Metric,
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    other: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    stratify: bool = True,
    level: float = 0.95,
    n_resamples: int = 2000,
    random_state: int | np.random.RandomState | None = None,
    n_jobs: int | None = None,
) -> BootstrapInterval:
    """Estimate a metric with its percentile bootstrap interval.

    Samples are drawn with replacement, as many as there are, and the metric is computed
    on each of these resamples. The ends of the interval are quantiles of the results. A
    metric that grows with the noise of small samples, such as
    :func:`expected_calibration_error`, is higher on resamples than on the original
    samples, and its interval is too high by the same amount.

    Parameters
    ----------
    metric : callable
        ``metric(y_true, y_pred)`` → float, such as
        :func:`sklearn.metrics.roc_auc_score` or :func:`expected_calibration_error`.
    y_true : array-like of shape (n_samples,)
        True labels.
    y_pred : array-like of shape (n_samples, ...)
        Predicted labels or probabilities, as the metric takes them.
    other : array-like of shape (n_samples, ...), default=None
        Predictions of a second model. The estimate is then the metric of the first
        model minus that of the second, on the same resamples.
    groups : array-like of shape (n_samples,), default=None
        Groups of samples that are not independent. Whole groups are then drawn, without
        stratification.
    stratify : bool, default=True
        Whether each resample has as many samples of each class as the data. It must be
        False for continuous targets.
    level : float, default=0.95
        Confidence level of the interval, in (0, 1).
    n_resamples : int, default=2000
        Number of resamples.
    random_state : int or RandomState, default=None
        Seed of the resamples. The interval does not depend on ``n_jobs``.
    n_jobs : int, default=None
        Number of joblib workers.

    Returns
    -------
    BootstrapInterval
        The estimate and its percentile interval.

    Raises
    ------
    ValueError
        If a parameter is invalid, or the metric of a resample is NaN.

    See Also
    --------
    compare_probes : Tests whether one probe is better, over folds.

    References
    ----------
    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993: the percentile
    interval is equation 13.5; resamples of several samples are in section 8.3.

    Examples
    --------
    >>> import numpy as np
    >>> from plug_sklearn import bootstrap_interval
    >>> from sklearn.metrics import accuracy_score
    >>> y, predicted = np.arange(200) % 2, np.ones(200)
    >>> predicted[:80] = y[:80]
    >>> print(bootstrap_interval(accuracy_score, y, predicted, random_state=0))
    0.700 [0.655, 0.750]
    """
    owner = "bootstrap_interval"
    _check_parameters(owner, metric, stratify, level, n_resamples)
    truth = column_or_1d(y_true)
    models = [np.asarray(y) for y in (y_pred, other) if y is not None]
    check_consistent_length(truth, *models)
    check_groups(groups, len(truth), owner)
    strata, members = _stratify(truth, groups, stratify, owner)
    estimate = _measure(metric, truth, models)
    sizes = np.diff([*range(0, n_resamples, CHUNK), n_resamples])
    seeds = check_random_state(random_state).randint(2**31 - 1, size=len(sizes))
    found = np.concatenate(
        Parallel(n_jobs=n_jobs)(
            delayed(_measure_resamples)(
                metric, truth, models, strata, members, size, seed
            )
            for size, seed in zip(sizes, seeds, strict=True)
        )
    )
    _refuse_nan(found, owner)
    lower, upper = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return BootstrapInterval(
        estimate=estimate,
        lower=float(lower),
        upper=float(upper),
        standard_error=float(found.std(ddof=1)),
        level=level,
    )


def _refuse_nan(found: NDArray[np.float64], owner: str) -> None:
    if np.isnan(found).any():
        raise ValueError(
            f"The 'metric' parameter of {owner} must give a number for every resample. "
            f"Got NaN for {np.isnan(found).sum()} of {len(found)}. Without "
            "stratification, resamples may lack a class."
        )


def _check_parameters(
    owner: str, metric: Metric, stratify: bool, level: float, n_resamples: int
) -> None:
    if not callable(metric):
        raise ValueError(
            f"The 'metric' parameter of {owner} must be a function of true and "
            "predicted values, such as sklearn.metrics.roc_auc_score; it is the first "
            f"argument. Got {type(metric).__name__} instead."
        )
    validate_parameter_constraints(
        {
            "stratify": ["boolean"],
            "level": [Interval(Real, 0, 1, closed="neither")],
            "n_resamples": [Interval(Integral, 2, None, closed="left")],
        },
        {"stratify": stratify, "level": level, "n_resamples": n_resamples},
        caller_name=owner,
    )


def _stratify(
    truth: NDArray[Any], groups: ArrayLike | None, stratify: bool, owner: str
) -> tuple[Rows, Rows | None]:
    """Return the units of each stratum, to draw separately, and the rows of each unit.

    If there are no groups, a unit is a row.
    """
    if groups is not None:
        members = _split_by_value(column_or_1d(groups))
        return [np.arange(len(members))], members
    if not stratify:
        return [np.arange(len(truth))], None
    strata = _split_by_value(truth)
    n_alone = sum(len(rows) == 1 for rows in strata)
    if 2 * n_alone > len(truth):
        # Each resample would then hold the same rows.
        raise ValueError(
            f"The 'stratify' parameter of {owner} must be False unless y_true holds "
            f"classes. Got True, and {n_alone} of {len(truth)} samples have a label "
            "that no other sample has."
        )
    return strata, None


def _split_by_value(values: NDArray[Any]) -> Rows:
    """Return the rows of each value."""
    codes = np.unique(values, return_inverse=True)[1]
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.cumsum(np.bincount(codes))[:-1])


def _measure_resamples(
    metric: Metric,
    truth: NDArray[Any],
    models: list[NDArray[Any]],
    strata: Rows,
    members: Rows | None,
    n_resamples: int,
    seed: int,
) -> NDArray[np.float64]:
    rng = np.random.RandomState(seed)
    measured = []
    for _ in range(n_resamples):
        drawn = [own[rng.randint(len(own), size=len(own))] for own in strata]
        rows = np.concatenate(drawn)
        if members is not None:
            rows = np.concatenate([members[unit] for unit in rows])
        measured.append(_measure(metric, truth[rows], [y[rows] for y in models]))
    return np.array(measured)


def _measure(metric: Metric, truth: NDArray[Any], models: list[NDArray[Any]]) -> float:
    values = [float(metric(truth, predictions)) for predictions in models]
    return values[0] - sum(values[1:])
