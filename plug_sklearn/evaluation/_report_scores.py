"""Scorers of a report, and its scores of all folds together."""

import warnings
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import log_loss, make_scorer, roc_auc_score

from plug_sklearn._warnings import warn_user
from plug_sklearn.evaluation._calibration import brier_score, expected_calibration_error
from plug_sklearn.evaluation._fold_scorer import FoldScorer
from plug_sklearn.evaluation._tables import Scoring, list_scores

#: scikit-learn's scorers of these names fail where a fold tests only some classes.
LOSSES = {"neg_log_loss": log_loss, "neg_brier_score": brier_score}


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
    metrics = {rank: measure_auc, **LOSSES}
    return {
        "accuracy": "accuracy",
        **{
            name: make_scorer(
                metric,
                greater_is_better=name not in LOSSES,
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


def resolve_scoring(scoring: Scoring | None, classes: NDArray[Any]) -> Any:  # noqa: ANN401 - as below
    """Turn a ``scoring`` parameter into scorers by name where the names are known.

    Parameters
    ----------
    scoring : str, callable, sequence of str, dict or None
        As :func:`cross_validation_report` takes it.
    classes : ndarray of shape (n_classes,)
        All labels.

    Returns
    -------
    dict or callable
        Name → scorer; or a callable that returns a number or a dict of numbers. Log
        loss and Brier score know all classes.
    """
    defaults = choose_default_scorers(classes)
    if scoring is None:
        return defaults
    if callable(scoring):
        # A scorer that make_scorer made gives one number.
        return {"score": scoring} if hasattr(scoring, "_score_func") else scoring
    names = [scoring] if isinstance(scoring, str) else scoring
    if not isinstance(names, Mapping):
        # scikit-learn says what is wrong with a sequence of other things.
        if not all(isinstance(name, str) for name in names):
            return scoring
        names = {name: name for name in names}
    losses = {name: defaults[name] for name in LOSSES}
    return {
        name: losses.get(scorer, scorer) if isinstance(scorer, str) else scorer
        for name, scorer in names.items()
    }


def score_overall(
    scores: pd.DataFrame,
    probabilities: NDArray[np.float64],
    y: NDArray[Any],
    scorer: FoldScorer,
) -> pd.DataFrame:
    """Score all folds together.

    Parameters
    ----------
    scores : DataFrame
        Scores by fold.
    probabilities : ndarray of shape (n_predictions, n_classes)
        Of the test rows of all folds; NaN where there are none.
    y : ndarray of shape (n_predictions,)
        Their labels.
    scorer : FoldScorer
        What was scored.

    Returns
    -------
    DataFrame
        A row a score: ``mean`` and ``std`` over folds, and ``pooled``.
    """
    pooled = PooledClassifier(scorer.classes, probabilities)
    there = np.flatnonzero(np.isfinite(probabilities).all(axis=1))
    with warnings.catch_warnings():
        # Scorers that need more than probabilities fail here, and "pooled" is NaN.
        warnings.simplefilter("ignore")
        found = scorer(pooled, there, y[there]) if len(there) else {}
    overall = scores[list_scores(scores)].agg(["mean", "std"]).T
    overall["pooled"] = pd.Series(found, dtype=np.float64)
    return overall


def measure_calibration(
    y: NDArray[Any], probabilities: NDArray[np.float64], classes: NDArray[Any]
) -> dict[str, float]:
    """Measure how well probabilities are calibrated.

    Parameters
    ----------
    y : ndarray of shape (n_predictions,)
        True labels.
    probabilities : ndarray of shape (n_predictions, n_classes)
        NaN where there are none.
    classes : ndarray of shape (n_classes,)
        Labels, in the order of the columns.

    Returns
    -------
    dict of float
        By the name of the measure; NaN, with a warning, if these are no probabilities.
    """
    there = np.isfinite(probabilities).all(axis=1)
    measured = {}
    for metric in (expected_calibration_error, brier_score):
        try:
            value = metric(y[there], probabilities[there], labels=classes)
        except ValueError as error:
            warn_user(
                f"The {metric.__name__} of cross_validation_report is NaN: {error}"
            )
            value = float("nan")
        measured[metric.__name__] = value
    return measured
