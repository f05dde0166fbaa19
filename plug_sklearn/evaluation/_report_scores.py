"""Predictions of all folds → the scores of a report."""

import warnings
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import check_scoring, log_loss, make_scorer, roc_auc_score

from plug_sklearn._warnings import warn_user
from plug_sklearn.evaluation._calibration import brier_score
from plug_sklearn.evaluation._folds import Folds, refuse_failed_fits, score_folds
from plug_sklearn.evaluation._tables import Scoring, list_scores


def choose_default_scorers(classes: NDArray[Any]) -> dict[str, Any]:
    """Choose the scores of a report that none are chosen for.

    They go by the names of scikit-learn's scorers, and know the classes that a fold
    tests none of: log loss and Brier score are defined there too, and the area under
    the ROC curve is NaN.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
        All labels.

    Returns
    -------
    dict
        Name → scorer.
    """
    rank = "roc_auc" if len(classes) == 2 else "roc_auc_ovr"
    losses = {"neg_log_loss": log_loss, "neg_brier_score": brier_score}
    metrics = {rank: measure_auc, **losses}
    return {
        "accuracy": "accuracy",
        **{
            name: make_scorer(
                metric,
                greater_is_better=name not in losses,
                response_method="predict_proba",
                labels=classes,
            )
            for name, metric in metrics.items()
        },
    }


def measure_auc(
    y_true: NDArray[Any], y_proba: NDArray[np.float64], labels: NDArray[Any]
) -> float:
    """Measure the area under the ROC curve, each class against the rest, averaged.

    Parameters
    ----------
    y_true : ndarray of shape (n_samples,)
        True labels.
    y_proba : ndarray of shape (n_samples,) or (n_samples, n_classes)
        Probabilities of the second class of two, or of each class.
    labels : ndarray of shape (n_classes,)
        All labels.

    Returns
    -------
    float
        NaN where a class has no row.
    """
    if len(np.unique(y_true)) < len(labels):
        return float("nan")
    if y_proba.ndim == 1:
        return float(roc_auc_score(y_true == labels[1], y_proba))
    return float(roc_auc_score(y_true, y_proba, multi_class="ovr", labels=labels))


class PooledClassifier(ClassifierMixin, BaseEstimator):
    """What a scorer takes for a classifier: predictions that are there already.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
        Labels, in the order of the columns.
    probabilities : ndarray of shape (n_samples, n_classes)
        Probabilities by row; ``X`` is the numbers of rows.
    """

    def __init__(
        self, classes: NDArray[Any], probabilities: NDArray[np.float64]
    ) -> None:
        self.classes = classes
        self.probabilities = probabilities
        self.classes_ = classes

    def fit(self, X: object, y: object) -> Self:
        """Do nothing: what would be fitted has predicted."""
        return self

    def predict_proba(self, X: NDArray[np.intp]) -> NDArray[np.float64]:
        """Look the probabilities up, (n, n_classes)."""
        return self.probabilities[X]

    def predict(self, X: NDArray[np.intp]) -> NDArray[Any]:
        """Look the most probable labels up, (n,)."""
        labels: NDArray[Any] = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return labels


def score_each_fold(
    estimator: BaseEstimator,
    X: Any,  # noqa: ANN401 - whatever the estimator takes
    y: NDArray[Any],
    folds: Folds,
    scoring: Scoring,
    fit_params: Mapping[str, Any],
    n_jobs: int | None,
) -> tuple[pd.DataFrame, list[Any]]:
    """Fit an estimator on each fold, score it, and count the rows.

    Parameters
    ----------
    estimator, X, y, folds, scoring, fit_params, n_jobs : see below
        As in :func:`score_folds`.

    Returns
    -------
    scores : DataFrame
        A row a fold, as :class:`CrossValidationReport` describes it.
    estimators : list
        The fitted estimators.

    Raises
    ------
    ValueError
        If the estimator cannot be fitted on a fold.

    Warns
    -----
    UserWarning
        If a score is undefined in a fold.
    """
    with warnings.catch_warnings(), refuse_failed_fits("cross_validation_report"):
        # One warning of ours says it for all folds.
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        scores, estimators = score_folds(
            estimator,
            X,
            y,
            folds,
            scoring=scoring,
            fit_params=fit_params,
            n_jobs=n_jobs,
        )
    _warn_of_undefined(scores)
    scores["n_train"], scores["n_test"] = (
        [len(rows) for rows in side] for side in zip(*folds, strict=True)
    )
    return scores, estimators


def _warn_of_undefined(scores: pd.DataFrame) -> None:
    for name in list_scores(scores):
        folds = scores.loc[scores[name].isna(), "fold"].tolist()
        if folds:
            warn_user(
                f"The score {name!r} is undefined in folds {folds}, whose test rows "
                "may be of one class. Means leave them out."
            )


def score_overall(
    scores: pd.DataFrame,
    classes: NDArray[Any],
    probabilities: NDArray[np.float64],
    y: NDArray[Any],
    scoring: Scoring,
) -> pd.DataFrame:
    """Score all folds together.

    Parameters
    ----------
    scores : DataFrame
        Scores by fold.
    classes : ndarray of shape (n_classes,)
        Labels, in the order of the columns.
    probabilities : ndarray of shape (n_predictions, n_classes)
        Of the test rows of all folds.
    y : ndarray of shape (n_predictions,)
        Their labels.
    scoring : str, callable, sequence of str or dict
        What was scored.

    Returns
    -------
    DataFrame
        A row a score: ``mean`` and ``std`` over folds, and ``pooled``.
    """
    names = list_scores(scores)
    pooled = PooledClassifier(classes, probabilities)
    several = [scoring] if isinstance(scoring, str) else scoring
    scorer = check_scoring(pooled, scoring=several, raise_exc=False)
    found = scorer(pooled, np.arange(len(y)), y)
    found = found if isinstance(found, dict) else dict.fromkeys(names, found)
    overall = scores[names].agg(["mean", "std"]).T
    # A scorer that fails gives its traceback in place of a number.
    overall["pooled"] = pd.to_numeric(pd.Series(found), errors="coerce")
    return overall
