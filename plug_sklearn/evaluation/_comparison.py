"""Compare two probes on the same folds, with a confidence interval and a test."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from sklearn.base import BaseEstimator, is_classifier
from sklearn.utils import check_consistent_length, column_or_1d

from plug_sklearn._progress import count_fits
from plug_sklearn._sklearn import Interval, validate_parameter_constraints
from plug_sklearn.evaluation._folds import Folds, Scoring, list_scores, split_folds
from plug_sklearn.evaluation._inputs import check_estimator, check_rows

OWNER = "compare_probes"
#: What the numbers of rows, and the level of an interval, may be.
CONSTRAINTS = {
    "n_train": [Interval(Real, 0, None, closed="neither")],
    "n_test": [Interval(Real, 0, None, closed="neither")],
    "level": [Interval(Real, 0, 1, closed="neither")],
}


@dataclass(frozen=True)
class ProbeComparison:
    """Difference between the scores of two probes, with its interval and test.

    Parameters
    ----------
    first, second : float
        Mean scores over the folds.
    difference : float
        The first mean score minus the second.
    lower, upper : float
        Ends of the confidence interval of the difference.
    level : float
        Confidence level of the interval.
    standard_error : float
        Corrected standard error of the difference.
    statistic : float
        The difference divided by its standard error.
    degrees_of_freedom : int
        Number of folds minus 1.
    pvalue : float
        Two-sided p-value: the probability of such a difference, or a larger one,
        between probes that are equally good.
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
    """Test the difference of scores over folds with the corrected resampled t-test.

    The training sets of folds overlap, so the scores are not independent. The
    ordinary paired t-test therefore finds differences where there are none. The
    correction increases the variance of the mean over J folds from s² / J, where s² is
    the variance over folds, to (1 / J + n_test / n_train) s².

    Parameters
    ----------
    first, second : array-like of shape (n_folds,)
        Scores of two probes on the same folds, such as columns of two
        ``CrossValidationReport.scores``.
    n_train, n_test : float
        Numbers of training and test samples of a fold; their means, if folds differ.
    level : float, default=0.95
        Confidence level of the interval, in (0, 1).

    Returns
    -------
    ProbeComparison
        The difference, its interval and its test. If the difference is the same in all
        folds, both ends of the interval equal it, and ``pvalue`` is 1 for a difference
        of 0, and 0 otherwise.

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
    given = {"n_train": n_train, "n_test": n_test, "level": level}
    validate_parameter_constraints(CONSTRAINTS, given, caller_name="compare_scores")
    pair = _read_pair(first, second)
    differences = pair[0] - pair[1]
    # Differences of equal scores are not exactly 0 after rounding.
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


def _read_pair(first: ArrayLike, second: ArrayLike) -> list[NDArray[np.float64]]:
    pair = [column_or_1d(scores).astype(np.float64) for scores in (first, second)]
    check_consistent_length(*pair)
    if len(pair[0]) < 2 or not np.isfinite(pair).all():
        raise ValueError(
            "The 'first' and 'second' parameters of compare_scores must be finite "
            f"scores of two folds or more. Got {pair[0].tolist()} and "
            f"{pair[1].tolist()} instead."
        )
    return pair


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
    verbose: bool = False,
) -> pd.DataFrame:
    """Fit two probes on the same folds, and test whether one scores better.

    Parameters
    ----------
    first, second : estimator
        The probes. To compare layers, give pipelines that begin with a
        :class:`LayerAggregator`.
    X : array-like of shape (n_samples, ...)
        Features or activations, as both probes take them.
    y : array-like of shape (n_samples,)
        Targets.
    cv : int, splitter or iterable, default=None
        Folds, as in :func:`~sklearn.model_selection.cross_validate`. Repeated folds
        make the comparison more certain.
        With ``groups``, None or a number of folds keeps groups together, by
        ``StratifiedGroupKFold`` for classes and ``GroupKFold`` otherwise.
    scoring : str, callable, sequence of str or dict, default=None
        One score or several, as in :func:`~sklearn.model_selection.cross_validate`;
        None: the probes' own.
    groups : array-like of shape (n_samples,), default=None
        Groups for ``cv``. They also reach the ``fit`` of a probe that takes them, alone
        or at the end of a pipeline.
    first_params, second_params : dict, default=None
        Further arguments of each ``fit``.
    level : float, default=0.95
        Confidence level of the interval, in (0, 1).
    n_jobs : int, default=None
        Number of joblib workers, over folds.
    verbose : bool, default=False
        Whether to show a progress bar, in a terminal or notebook.

    Returns
    -------
    DataFrame
        A row for each score, under its name, or ``"score"`` where it has none. Columns:
        ``first`` and ``second``, the mean scores; their ``difference``, with the ends
        ``lower`` and ``upper`` of its confidence interval of ``level``;
        ``standard_error``, ``statistic``, ``degrees_of_freedom`` and ``pvalue`` of the
        corrected resampled t-test.

    Raises
    ------
    ValueError
        If a parameter is invalid, or a score is NaN.

    See Also
    --------
    compare_scores : The test alone, for given scores.
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
    check_estimator(first, OWNER, "first")
    check_estimator(second, OWNER, "second")
    check_rows(X, y, groups, OWNER)
    validation = split_folds(first, X, y, cv, groups, scoring, OWNER)
    _check_comparable(first, second, scoring, len(validation.folds), level)
    tables = [
        replace(validation, params=params).score(probe, X, n_jobs=n_jobs)[0]
        for probe, params in count_fits(
            ((first, first_params), (second, second_params)), 2, "probe", shown=verbose
        )
    ]
    return _compare_tables(tables, validation.folds, level)


def _compare_tables(
    tables: list[pd.DataFrame], folds: Folds, level: float
) -> pd.DataFrame:
    scores = list_scores(tables[0])
    for probe, table in zip(("first", "second"), tables, strict=True):
        for score in scores:
            missing = table.loc[table[score].isna(), "fold"].tolist()
            if missing:
                raise ValueError(
                    f"The {probe!r} parameter of {OWNER} must have a score on every "
                    f"fold. Got NaN for {score!r} in folds {missing}."
                )
    n_train, n_test = (
        float(np.mean([len(rows) for rows in side]))
        for side in zip(*folds, strict=True)
    )
    comparisons = {
        score: compare_scores(
            *(table[score] for table in tables),
            n_train=n_train,
            n_test=n_test,
            level=level,
        )
        for score in scores
    }
    return pd.DataFrame([vars(c) for c in comparisons.values()], index=[*comparisons])


def _check_comparable(
    first: BaseEstimator,
    second: BaseEstimator,
    scoring: Scoring | None,
    n_folds: int,
    level: float,
) -> None:
    """Check what would otherwise fail only after all fits."""
    validate_parameter_constraints(CONSTRAINTS, {"level": level}, caller_name=OWNER)
    if n_folds < 2:
        raise ValueError(
            f"The 'cv' parameter of {OWNER} must give two folds or more. Got {n_folds} "
            "instead."
        )
    if scoring is None and is_classifier(first) != is_classifier(second):
        raise ValueError(
            f"The 'scoring' parameter of {OWNER} must name a score if one probe is a "
            "classifier and the other is not. Got None instead."
        )
