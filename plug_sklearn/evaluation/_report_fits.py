"""An estimator → one fitted on each fold of a report, with its scores there."""

import warnings
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.utils import _safe_indexing
from sklearn.utils.parallel import Parallel, delayed

from plug_sklearn._warnings import warn_user
from plug_sklearn.evaluation._fold_scorer import FoldScorer
from plug_sklearn.evaluation._folds import Folds, refuse_failed_fits, score_folds
from plug_sklearn.evaluation._probabilities import refuse_without_probabilities
from plug_sklearn.evaluation._tables import TIMES, list_scores

OWNER = "cross_validation_report"


def score_each_fold(
    estimator: BaseEstimator,
    X: Any,  # noqa: ANN401 - whatever the estimator takes
    y: NDArray[Any],
    folds: Folds,
    scorer: FoldScorer,
    fit_params: Mapping[str, Any],
    n_jobs: int | None,
) -> tuple[pd.DataFrame, list[Any]]:
    """Fit an estimator on each fold, score it, and count the rows.

    Parameters
    ----------
    estimator, X, y, folds, fit_params, n_jobs : see below
        As in :func:`score_folds`.
    scorer : FoldScorer
        Scores of a fold.

    Returns
    -------
    scores : DataFrame
        A row a fold, as :class:`CrossValidationReport` describes it.
    estimators : list
        The fitted estimators.

    Raises
    ------
    ValueError
        If the estimator cannot be fitted on a fold, or predicts no probabilities.

    Warns
    -----
    UserWarning
        If a score is undefined in a fold.
    """
    tables, estimators = [], []
    # For some estimators only a fitted one shows whether it predicts probabilities. The
    # first fold is then fitted alone, so that a refusal costs one fit and not all.
    is_sure = hasattr(estimator, "predict_proba")
    chunks = [folds] if is_sure else [folds[:1], folds[1:]]
    with warnings.catch_warnings(), refuse_failed_fits(OWNER):
        # One warning of ours says it for all folds.
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        for chunk in filter(None, chunks):
            table, fitted = score_folds(
                estimator,
                X,
                y,
                chunk,
                scoring=_score_nothing if scorer.names is None else scorer,
                fit_params=fit_params,
                n_jobs=n_jobs,
            )
            refuse_without_probabilities(fitted[0], OWNER)
            tables.append(table)
            estimators += fitted
        scores = pd.concat(tables, ignore_index=True)
        scores["fold"] = np.arange(len(folds))
        if scorer.names is None:
            scores = _score_by_callable(scores, estimators, X, y, folds, scorer, n_jobs)
    _warn_of_undefined(scores)
    scores["n_train"], scores["n_test"] = (
        [len(rows) for rows in side] for side in zip(*folds, strict=True)
    )
    return scores, estimators


def _score_nothing(estimator: object, X: object, y: object) -> float:
    """Give 0 to cross_validate, where the scores are computed afterwards."""
    return 0.0


def _score_by_callable(
    table: pd.DataFrame,
    estimators: Sequence[Any],
    X: Any,  # noqa: ANN401 - whatever the estimators take
    y: NDArray[Any],
    folds: Folds,
    scorer: FoldScorer,
    n_jobs: int | None,
) -> pd.DataFrame:
    """Score with a callable, whose names of scores are known only from its results."""
    found = Parallel(n_jobs=n_jobs)(
        delayed(_score_and_time)(
            scorer, fitted, _safe_indexing(X, test), _safe_indexing(y, test)
        )
        for fitted, (_, test) in zip(estimators, folds, strict=True)
    )
    scores = pd.DataFrame([scores for scores, _ in found], index=table.index)
    if scores.empty:
        scores = pd.DataFrame({"score": np.nan}, index=table.index)
    table["score_time"] = [seconds for _, seconds in found]
    return pd.concat([table[["fold"]], scores, table[TIMES]], axis=1)


def _score_and_time(
    scorer: FoldScorer, fitted: object, X: object, y: NDArray[Any]
) -> tuple[dict[str, float], float]:
    start = perf_counter()
    scores = scorer(fitted, X, y)
    return scores, perf_counter() - start


def _warn_of_undefined(scores: pd.DataFrame) -> None:
    for name in list_scores(scores):
        folds = scores.loc[scores[name].isna(), "fold"].tolist()
        if folds:
            warn_user(
                f"The score {name!r} is undefined in folds {folds}: their test rows "
                "may be of one class, or the scorer fails on them. Means leave them "
                "out."
            )
