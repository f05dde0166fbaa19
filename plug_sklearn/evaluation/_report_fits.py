"""Fit and score an estimator on each fold, and predict the test samples."""

import warnings
from dataclasses import replace
from time import perf_counter
from traceback import format_exc
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.utils.parallel import delayed

from plug_sklearn._progress import run_jobs
from plug_sklearn._sklearn import take_rows
from plug_sklearn._warnings import warn_user
from plug_sklearn.evaluation._folds import (
    TIMES,
    CrossValidation,
    Folds,
    list_scores,
    shorten_error,
)
from plug_sklearn.evaluation._inputs import check_probabilistic
from plug_sklearn.evaluation._report_scores import PaddedClassifier, name_columns

OWNER = "cross_validation_report"


class FoldFit(NamedTuple):
    """A fitted estimator, its scores and the probabilities of its test samples.

    If the fit failed, ``estimator`` is None and ``failure`` is the error. If only the
    prediction failed, ``failure`` is its error. Probabilities have shape
    (n_test, n_classes), and are NaN after a failure.
    """

    estimator: Any
    scores: pd.DataFrame
    probabilities: NDArray[np.float64]
    failure: str = ""
    traceback: str = ""


def fit_folds(
    estimator: BaseEstimator,
    X: Any,  # noqa: ANN401 - whatever the estimator takes
    validation: CrossValidation,
    n_jobs: int | None,
    verbose: bool,
) -> list[FoldFit]:
    """Fit an estimator on each fold, score it, and predict the test samples."""

    def fit(chosen: Folds) -> list[FoldFit]:
        return run_jobs(
            [
                delayed(_fit_fold)(estimator, X, replace(validation, folds=[fold]))
                for fold in chosen
            ],
            n_jobs=n_jobs,
            unit="fold",
            verbose=verbose,
        )

    folds = validation.folds
    fits: list[FoldFit] = []
    with warnings.catch_warnings():
        # One warning of this package covers all folds.
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        if not hasattr(estimator, "predict_proba"):
            # Only a fitted one shows whether it predicts probabilities. Folds are
            # fitted one by one until a fit succeeds, so that a refusal costs one fit.
            while len(fits) < len(folds) and all(one.estimator is None for one in fits):
                fits += fit(folds[len(fits) : len(fits) + 1])
            _check_fits(fits)
        fits += fit(folds[len(fits) :])
    _check_fits(fits)
    _warn_of_failures(fits)
    return fits


def _fit_fold(
    estimator: BaseEstimator,
    X: Any,  # noqa: ANN401 - whatever the estimator takes
    validation: CrossValidation,
) -> FoldFit:
    classes, ((_, test),) = validation.scoring.classes, validation.folds
    unknown = np.full((len(test), len(classes)), np.nan)
    start = perf_counter()
    try:
        scores, (fitted,) = validation.score(estimator, X, error_score="raise")
    except Exception as error:
        times = {"fold": 0, "fit_time": perf_counter() - start, "score_time": 0.0}
        # The error goes as text: not every exception can be pickled.
        return FoldFit(
            None, pd.DataFrame([times]), unknown, _describe(error), format_exc()
        )
    if not hasattr(fitted, "predict_proba"):
        return FoldFit(fitted, scores, unknown)
    try:
        padded = PaddedClassifier(fitted, classes)
        probabilities = padded.predict_proba(take_rows(X, test))
    except Exception as error:
        return FoldFit(fitted, scores, unknown, _describe(error))
    return FoldFit(fitted, scores, probabilities)


def _describe(error: Exception) -> str:
    return shorten_error(f"{type(error).__name__}: {error}")


def _check_fits(fits: list[FoldFit]) -> None:
    fitted = [one.estimator for one in fits if one.estimator is not None]
    if fitted:
        check_probabilistic(fitted[0], OWNER, is_fitted=True)
        return
    error = ValueError(
        f"The 'estimator' parameter of {OWNER} must be able to fit at least one fold. "
        f"All {len(fits)} fits failed, the first with {fits[0].failure}"
    )
    error.add_note(f"The first failed fit:\n{fits[0].traceback}")
    raise error


def _warn_of_failures(fits: list[FoldFit]) -> None:
    folds_of: dict[tuple[bool, str], list[int]] = {}
    for fold, one in enumerate(fits):
        if one.failure:
            folds_of.setdefault((one.estimator is None, one.failure), []).append(fold)
    for (is_unfitted, failure), folds in folds_of.items():
        where = f"fold {folds[0]}" if len(folds) == 1 else f"folds {folds}"
        problem = (
            f"cannot be fitted on {where}, where scores and"
            if is_unfitted
            else f"cannot predict the test samples of {where}, where"
        )
        warn_user(
            f"In {OWNER}, the estimator {problem} probabilities are NaN: {failure}"
        )


def tabulate_scores(fits: list[FoldFit], validation: CrossValidation) -> pd.DataFrame:
    """Make the table of scores by fold that a report holds.

    Scores of failed fits are NaN. Warns of scores that are undefined elsewhere.
    """
    scores = pd.concat([one.scores for one in fits], ignore_index=True)
    scores["fold"] = np.arange(len(fits))
    # After a failure on the first fold, the columns of scores come last.
    found = [name for name in scores if name not in ("fold", *TIMES)]
    names = validation.scoring.names or found or ["score"]
    scores = scores.reindex(columns=["fold", *names, *TIMES])
    is_fitted = np.array([one.estimator is not None for one in fits])
    for name in list_scores(scores):
        undefined = scores.loc[scores[name].isna() & is_fitted, "fold"].tolist()
        if undefined:
            warn_user(
                f"The score {name!r} is undefined in folds {undefined}: their test "
                "samples may be of one class, or the scorer fails on them. They are "
                "left out of the means."
            )
    scores["n_train"], scores["n_test"] = (
        [len(rows) for rows in side] for side in zip(*validation.folds, strict=True)
    )
    return scores


def tabulate_predictions(
    fits: list[FoldFit],
    X: Any,  # noqa: ANN401 - whatever the estimators take
    validation: CrossValidation,
) -> pd.DataFrame:
    """Make the table of out-of-fold probabilities that a report holds."""
    probabilities = np.vstack([one.probabilities for one in fits])
    y, classes = validation.y, validation.scoring.classes
    tests = [test for _, test in validation.folds]
    rows = np.concatenate(tests)
    index = getattr(X, "index", None)
    index = index if isinstance(index, pd.Index) else pd.RangeIndex(len(y))
    table = pd.DataFrame(
        {"fold": np.repeat(range(len(tests)), [len(test) for test in tests])},
        index=index[rows],
    )
    if validation.groups is not None:
        table["group"] = np.asarray(validation.groups)[rows]
    table["label"] = y[rows]
    predicted = pd.Series(classes[probabilities.argmax(axis=1)], index=table.index)
    is_predicted = np.asarray(np.isfinite(probabilities).all(axis=1))
    if not is_predicted.all():
        # As objects, integers stay integers beside NaN.
        predicted = predicted.astype(object).where(is_predicted)
    table["predicted"] = predicted
    table[name_columns(classes)] = probabilities
    return table.iloc[np.argsort(rows, kind="stable")]
