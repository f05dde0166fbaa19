"""Scores of a report, for each fold and for all folds together."""

import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import check_scoring, log_loss, make_scorer, roc_auc_score
from sklearn.utils.metadata_routing import get_routing_for_object

from plug_sklearn._warnings import warn_user
from plug_sklearn.evaluation._calibration import brier_score, expected_calibration_error
from plug_sklearn.evaluation._folds import Scoring, list_scores

#: scikit-learn's scorers of these names fail on a fold that tests only some classes.
LOSSES = {"neg_log_loss": log_loss, "neg_brier_score": brier_score}


def resolve_scoring(scoring: Scoring | None, classes: NDArray[Any]) -> Any:  # noqa: ANN401 - as below
    """Turn the ``scoring`` of a report into a dict of scorers.

    A callable that may return several scores is returned as it is, since their names
    are unknown.
    """
    defaults = _make_default_scorers(classes)
    if scoring is None:
        return defaults
    if callable(scoring):
        # A scorer that make_scorer made returns one number.
        return {"score": scoring} if hasattr(scoring, "_score_func") else scoring
    names = [scoring] if isinstance(scoring, str) else scoring
    if not isinstance(names, Mapping):
        # scikit-learn has an error message for a sequence of other things.
        if not all(isinstance(name, str) for name in names):
            return scoring
        names = {name: name for name in names}
    losses = {name: defaults[name] for name in LOSSES}
    return {
        name: losses.get(scorer, scorer) if isinstance(scorer, str) else scorer
        for name, scorer in names.items()
    }


def _make_default_scorers(classes: NDArray[Any]) -> dict[str, Any]:
    """Make the default scorers of a report.

    They have the names of scikit-learn's scorers, and are given all classes. If a fold
    does not test all of them, log loss and Brier score are still defined, and the
    ROC-AUC is NaN.
    """
    auc = "roc_auc" if len(classes) == 2 else "roc_auc_ovr"
    return {
        "accuracy": "accuracy",
        **{
            name: make_scorer(
                metric,
                greater_is_better=name not in LOSSES,
                response_method="predict_proba",
                labels=classes,
            )
            for name, metric in {auc: _measure_auc, **LOSSES}.items()
        },
    }


def _measure_auc(
    y_true: NDArray[Any], y_proba: NDArray[np.float64], labels: NDArray[Any]
) -> float:
    """Measure the one-vs-rest ROC-AUC; NaN if a class has no sample."""
    if len(np.unique(y_true)) < len(labels):
        return float("nan")
    if y_proba.ndim == 1:
        return float(roc_auc_score(y_true == labels[1], y_proba))
    return float(roc_auc_score(y_true, y_proba, multi_class="ovr", labels=labels))


class FoldScorer:
    """Scores a fitted classifier on a fold; a score that fails is NaN, with a warning.

    ``scoring`` is a dict of scorers, or a callable that returns a number or a dict of
    numbers. ``classes`` are all labels, sorted.
    """

    def __init__(
        self,
        scoring: Any,  # noqa: ANN401 - scorers of any kind
        classes: NDArray[Any],
        estimator: BaseEstimator,
    ) -> None:
        self.classes = classes
        self.names = list(scoring) if isinstance(scoring, Mapping) else []
        # It calls predict_proba once for all scores.
        self.scorer: Callable[..., Any] = check_scoring(
            estimator, scoring=scoring, raise_exc=False
        )
        self.scorers = {
            name: check_scoring(estimator, scoring=scoring[name]) for name in self.names
        }

    def __call__(
        self,
        fitted: Any,  # noqa: ANN401 - a classifier of any kind
        X: Any,  # noqa: ANN401 - whatever it takes
        y: NDArray[Any],
        **params: Any,  # noqa: ANN401 - metadata of any kind
    ) -> dict[str, float]:
        """Return scores by name; none if a callable, whose names are unknown, fails."""
        if not hasattr(fitted, "predict_proba"):
            # The report refuses it, and says why.
            return dict.fromkeys(self.names, float("nan"))
        if len(getattr(fitted, "classes_", self.classes)) < len(self.classes):
            fitted = PaddedClassifier(fitted, self.classes)
        try:
            found = self.scorer(fitted, X, y, **params)
        except Exception as error:
            if not self.names:
                _warn_of_failure("scoring", repr(error))
                return {}
            # If one scorer needs a method that the classifier lacks, scikit-learn's
            # joint scorer returns no score at all.
            found = {
                name: _try_to_score(scorer, fitted, X, y)
                for name, scorer in self.scorers.items()
            }
        scores = found if isinstance(found, Mapping) else {"score": found}
        return {name: _read_number(name, score) for name, score in scores.items()}

    def get_metadata_routing(self) -> Any:  # noqa: ANN401 - scikit-learn's router
        """Return the metadata that the scorers request."""
        return get_routing_for_object(self.scorer)


class PaddedClassifier(ClassifierMixin, BaseEstimator):
    """A fitted classifier that predicts probability 0 for classes it has not seen.

    ``classes`` are all labels, sorted.
    """

    def __init__(self, fitted: Any, classes: NDArray[Any]) -> None:  # noqa: ANN401 - of any kind
        self.fitted = fitted
        self.classes = classes
        self.classes_ = classes

    def predict_proba(self, X: Any) -> NDArray[np.float64]:  # noqa: ANN401 - whatever it takes
        """Predict probabilities of shape (n_samples, n_classes)."""
        found = self.fitted.predict_proba(X)
        probabilities = np.zeros((len(found), len(self.classes)))
        probabilities[:, np.searchsorted(self.classes, self.fitted.classes_)] = found
        return probabilities

    def predict(self, X: Any) -> Any:  # noqa: ANN401 - whatever it takes, and labels
        """Predict labels of shape (n_samples,)."""
        return self.fitted.predict(X)


def _try_to_score(
    scorer: Callable[..., Any], fitted: object, X: object, y: NDArray[Any]
) -> Any:  # noqa: ANN401 - what a scorer returns
    try:
        return scorer(fitted, X, y)
    except Exception as error:
        return repr(error)


def _read_number(name: str, score: Any) -> float:  # noqa: ANN401 - what a scorer returns
    if not isinstance(score, str) and np.ndim(score) == 0:
        with suppress(TypeError, ValueError):
            return float(score)
    # In place of a score that fails, scikit-learn returns a traceback.
    reason = score.strip().rpartition("\n")[2] if isinstance(score, str) else score
    _warn_of_failure(f"the score {name!r}", f"{reason}")
    return float("nan")


def _warn_of_failure(what: str, reason: str) -> None:
    warn_user(
        f"In cross_validation_report, {what} failed on a fold and is NaN there: "
        f"{reason}"
    )


def name_columns(classes: NDArray[Any]) -> list[str]:
    """Return the names of the columns of probabilities, such as ``"proba_cat"``."""
    return [f"proba_{label}" for label in classes]


def score_overall(
    scores: pd.DataFrame, predictions: pd.DataFrame, scorer: FoldScorer
) -> pd.DataFrame:
    """Make a table with a row a score: ``mean`` and ``std`` over folds, and ``pooled``.

    ``scores`` are those by fold, and ``predictions`` those of the report.
    """
    y = predictions["label"].to_numpy()
    classes = scorer.classes
    probabilities = predictions[name_columns(classes)].to_numpy()
    # For scorers, a classifier that knows its probabilities, by numbers of rows.
    stored = SimpleNamespace(
        classes_=classes,
        predict_proba=lambda numbers: probabilities[numbers],
        predict=lambda numbers: classes[probabilities[numbers].argmax(axis=1)],
    )
    rows = np.flatnonzero(np.isfinite(probabilities).all(axis=1))
    with warnings.catch_warnings():
        # Scorers that need more than probabilities fail here, and "pooled" is NaN.
        warnings.simplefilter("ignore")
        known = PaddedClassifier(stored, classes)
        pooled = scorer(known, rows, y[rows]) if len(rows) else {}
    overall = scores[list_scores(scores)].agg(["mean", "std"]).T
    overall["pooled"] = pd.Series(pooled, dtype=np.float64)
    return overall


def measure_calibration(
    predictions: pd.DataFrame, classes: NDArray[Any]
) -> dict[str, float]:
    """Compute calibration error and Brier score, without samples whose values are NaN.

    What is no probability has NaN, with a warning.
    """
    y = predictions["label"].to_numpy()
    probabilities = predictions[name_columns(classes)].to_numpy()
    rows = np.isfinite(probabilities).all(axis=1)
    measured = {}
    for metric in (expected_calibration_error, brier_score):
        try:
            value = metric(y[rows], probabilities[rows], labels=classes)
        except ValueError as error:
            warn_user(
                f"The {metric.__name__} of cross_validation_report is NaN: {error}"
            )
            value = float("nan")
        measured[metric.__name__] = value
    return measured
