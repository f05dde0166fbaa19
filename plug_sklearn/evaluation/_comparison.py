"""Two probes on the same folds → whether one is better."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats
from sklearn.base import BaseEstimator
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils._param_validation import Interval, validate_parameter_constraints

from plug_sklearn.evaluation._folds import (
    Scoring,
    collect_fit_params,
    list_scores,
    score_folds,
    split_folds,
)


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


def compare_probes(
    first: BaseEstimator,
    second: BaseEstimator,
    X: Any,  # noqa: ANN401 - whatever the probes take
    y: ArrayLike,
    *,
    cv: Any = None,  # noqa: ANN401 - as scikit-learn's functions take it
    scoring: Scoring | None = None,
    groups: ArrayLike | None = None,
    first_params: Mapping[str, Any] | None = None,
    second_params: Mapping[str, Any] | None = None,
    level: float = 0.95,
    n_jobs: int | None = None,
) -> pd.DataFrame:
    """Fit two probes on the same folds, and test whether one scores better.

    Parameters
    ----------
    first, second : estimator
        The probes. Where they read different features, pipelines that begin with
        :class:`LayerAggregator`.
    X : array-like of shape (n_samples, ...)
        What both take.
    y : array-like of shape (n_samples,)
        Targets.
    cv : int, splitter or iterable, default=None
        Folds, as in :func:`~sklearn.model_selection.cross_validate`; repeated ones make
        the comparison surer.
    scoring : str, callable, sequence of str or dict, default=None
        One score or several, as in :func:`~sklearn.model_selection.cross_validate`;
        None: the probes' own.
    groups : array-like of shape (n_samples,), default=None
        Groups for ``cv``. They reach the ``fit`` of a probe that takes them too.
    first_params, second_params : dict, default=None
        More arguments of each ``fit``.
    level : float, default=0.95
        Probability that the interval is to cover, in (0, 1).
    n_jobs : int, default=None
        Workers of joblib, over folds.

    Returns
    -------
    DataFrame
        A row for each score, under its name, or ``"score"`` where it has none. Columns:
        ``first`` and ``second``, the mean scores; their ``difference``, with the ends
        ``lower`` and ``upper`` of its interval of ``level``; ``standard_error``,
        ``statistic``, ``degrees_of_freedom`` and ``pvalue`` of the corrected resampled
        t-test.

    Raises
    ------
    ValueError
        If a parameter is not what it must be, or a score is NaN.

    See Also
    --------
    compare_scores : The test, for scores that are there already.
    bootstrap_interval : An interval for one set of predictions.

    Examples
    --------
    >>> import numpy as np
    >>> from plug_sklearn import LayerAggregator, compare_probes
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> y = np.arange(200) % 2
    >>> X = np.random.default_rng(0).normal(size=(200, 3, 1, 8))
    >>> X[:, 1, 0, 0] += 2 * y
    >>> middle, last = (
    ...     make_pipeline(LayerAggregator(layers=[layer]), LogisticRegression())
    ...     for layer in (1, 2)
    ... )
    >>> comparison = compare_probes(middle, last, X, y, scoring="roc_auc")
    >>> comparison[["first", "second", "difference", "pvalue"]].round(3)
             first  second  difference  pvalue
    roc_auc  0.901   0.481        0.42   0.004
    """
    folds = split_folds(first, X, y, cv, groups)
    tables = [
        score_folds(
            probe,
            X,
            y,
            folds,
            scoring=scoring,
            fit_params=collect_fit_params(probe, params, groups),
            n_jobs=n_jobs,
        )[0]
        for probe, params in ((first, first_params), (second, second_params))
    ]
    n_train, n_test = (
        [len(rows) for rows in side] for side in zip(*folds, strict=True)
    )
    comparisons = {
        score: compare_scores(
            *(table[score] for table in tables),
            n_train=float(np.mean(n_train)),
            n_test=float(np.mean(n_test)),
            level=level,
        )
        for score in list_scores(tables[0])
    }
    return pd.DataFrame([vars(c) for c in comparisons.values()], index=[*comparisons])


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
        If there are fewer than two folds, or a score is NaN.

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
            "level": [Interval(Real, 0, 1, closed="neither")],
        },
        {"n_train": n_train, "n_test": n_test, "level": level},
        caller_name=owner,
    )
    pair = [column_or_1d(scores).astype(np.float64) for scores in (first, second)]
    check_consistent_length(*pair)
    differences = pair[0] - pair[1]
    if len(differences) < 2 or np.isnan(differences).any():
        raise ValueError(
            f"The 'first' and 'second' parameters of {owner} must be scores of two "
            f"folds or more, none NaN. Got {pair[0].tolist()} and {pair[1].tolist()} "
            "instead."
        )
    mean, n_folds = float(differences.mean()), len(differences)
    variance = (1 / n_folds + n_test / n_train) * differences.var(ddof=1)
    error = float(np.sqrt(variance))
    # Rounding leaves the variance of equal differences a little above zero.
    if error <= 1e-12 * abs(mean):
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
