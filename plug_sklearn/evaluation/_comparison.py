"""Two probes → which scores better on the same folds, and how sure that is."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, is_classifier
from sklearn.utils._param_validation import validate_parameter_constraints

from plug_sklearn.evaluation._folds import collect_fit_params, score_folds, split_folds
from plug_sklearn.evaluation._paired_scores import LEVEL, compare_scores
from plug_sklearn.evaluation._tables import Scoring, list_scores

OWNER = "compare_probes"


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
        Groups for ``cv``. They reach the ``fit`` of a probe that takes them too, alone
        or at the end of a pipeline.
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
    _check_comparable(first, second, scoring, len(folds), level)
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
    for probe, table in zip(("first", "second"), tables, strict=True):
        _refuse_nan(table, probe)
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


def _check_comparable(
    first: BaseEstimator,
    second: BaseEstimator,
    scoring: Scoring | None,
    n_folds: int,
    level: float,
) -> None:
    """Refuse what would come out only once all has been fitted."""
    validate_parameter_constraints({"level": LEVEL}, {"level": level}, OWNER)
    if n_folds < 2:
        raise ValueError(
            f"The 'cv' parameter of {OWNER} must give two folds or more. Got {n_folds} "
            "instead."
        )
    if scoring is None and is_classifier(first) != is_classifier(second):
        raise ValueError(
            f"The 'scoring' parameter of {OWNER} must name a score for a classifier "
            "and what is none: their own scores are not of a kind. Got None instead."
        )


def _refuse_nan(table: pd.DataFrame, probe: str) -> None:
    for score in list_scores(table):
        folds = table.loc[table[score].isna(), "fold"].tolist()
        if folds:
            raise ValueError(
                f"The {probe!r} parameter of {OWNER} must be a probe with a score on "
                f"every fold. Got NaN for {score!r} in folds {folds}: it fits, or is "
                "scored, only on others."
            )
