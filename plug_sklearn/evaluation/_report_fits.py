"""An estimator → one fitted on each fold of a report, with its scores there."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from traceback import format_exc
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
from plug_sklearn.evaluation._folds import Folds, score_folds
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
        The fitted estimators; None for a fold whose fit fails.

    Raises
    ------
    ValueError
        If the estimator cannot be fitted on any fold, or predicts no probabilities.

    Warns
    -----
    UserWarning
        If the estimator cannot be fitted on a fold, or a score is undefined in one.
    """

    def fit(chosen: Folds) -> list[_Fit]:
        return list(
            Parallel(n_jobs=n_jobs)(
                delayed(_fit_and_score)(estimator, X, y, fold, scorer, fit_params)
                for fold in chosen
            )
        )

    fits: list[_Fit] = []
    with warnings.catch_warnings():
        # One warning of ours says it for all folds.
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        if not hasattr(estimator, "predict_proba"):
            # Only a fitted one shows whether it predicts probabilities. Folds are
            # fitted one by one until a fit succeeds, so that a refusal costs one fit.
            while len(fits) < len(folds) and all(one.failure for one in fits):
                fits += fit(folds[len(fits) : len(fits) + 1])
            _refuse_without_probabilities(fits)
        fits += fit(folds[len(fits) :])
        _refuse_without_probabilities(fits)
        estimators = [one.estimator for one in fits]
        scores = _join_scores(fits)
        if scorer.names is None:
            scores = _score_by_callable(scores, estimators, X, y, folds, scorer, n_jobs)
    _warn_of_failed_fits(fits)
    _warn_of_undefined(scores, estimators)
    scores["n_train"], scores["n_test"] = (
        [len(rows) for rows in side] for side in zip(*folds, strict=True)
    )
    return scores, estimators


@dataclass(frozen=True)
class _Fit:
    """A fitted estimator and its scores; or why its fit failed."""

    estimator: Any = None
    scores: pd.DataFrame | None = None
    failure: str = ""
    traceback: str = ""
    fit_time: float = 0.0


def _fit_and_score(
    estimator: BaseEstimator,
    X: Any,  # noqa: ANN401 - whatever the estimator takes
    y: NDArray[Any],
    fold: tuple[NDArray[np.intp], NDArray[np.intp]],
    scorer: FoldScorer,
    fit_params: Mapping[str, Any],
) -> _Fit:
    start = perf_counter()
    try:
        scores, (fitted,) = score_folds(
            estimator,
            X,
            y,
            [fold],
            scoring=_score_nothing if scorer.names is None else scorer,
            fit_params=fit_params,
            error_score="raise",
        )
    except Exception as error:
        # As text: not every exception comes back from another process.
        return _Fit(
            failure=f"{type(error).__name__}: {error}",
            traceback=format_exc(),
            fit_time=perf_counter() - start,
        )
    return _Fit(fitted, scores)


def _refuse_without_probabilities(fits: list[_Fit]) -> None:
    """Refuse an estimator without probabilities, or whose fits all failed."""
    fitted = [one.estimator for one in fits if not one.failure]
    if fitted:
        refuse_without_probabilities(fitted[0], OWNER)
        return
    error = ValueError(
        f"The 'estimator' parameter of {OWNER} must be one that can be fitted. All "
        f"{len(fits)} fits failed, the first with {fits[0].failure}"
    )
    error.add_note(f"The first failed fit:\n{fits[0].traceback}")
    raise error


def _join_scores(fits: list[_Fit]) -> pd.DataFrame:
    """Put the scores of all folds in one table; those of failed fits are NaN."""
    there = [
        one.scores.assign(fold=fold)
        for fold, one in enumerate(fits)
        if one.scores is not None
    ]
    scores = pd.concat(there).set_index("fold").reindex(range(len(fits)))
    for fold, one in enumerate(fits):
        if one.failure:
            scores.loc[fold, TIMES] = one.fit_time, 0.0
    return scores.reset_index()


def _warn_of_failed_fits(fits: list[_Fit]) -> None:
    by_failure: dict[str, list[int]] = {}
    for fold, one in enumerate(fits):
        if one.failure:
            by_failure.setdefault(one.failure, []).append(fold)
    for failure, failed in by_failure.items():
        where = f"fold {failed[0]}" if len(failed) == 1 else f"folds {failed}"
        warn_user(
            f"In {OWNER}, the estimator cannot be fitted on {where}, where scores and "
            f"probabilities are NaN: {failure}"
        )


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
    scorer: FoldScorer, fitted: object | None, X: object, y: NDArray[Any]
) -> tuple[dict[str, float], float]:
    if fitted is None:
        return {}, 0.0
    start = perf_counter()
    scores = scorer(fitted, X, y)
    return scores, perf_counter() - start


def _warn_of_undefined(scores: pd.DataFrame, estimators: Sequence[Any]) -> None:
    is_fitted = np.array([fitted is not None for fitted in estimators])
    for name in list_scores(scores):
        folds = scores.loc[scores[name].isna() & is_fitted, "fold"].tolist()
        if folds:
            warn_user(
                f"The score {name!r} is undefined in folds {folds}: their test rows "
                "may be of one class, or the scorer fails on them. Means leave them "
                "out."
            )
