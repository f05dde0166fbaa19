"""Fitted classifiers → their scores on a fold; a score that fails becomes NaN."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import check_scoring

from plug_sklearn._warnings import warn_user

NAN = float("nan")


class FoldScorer:
    """Gives the scores of a fitted classifier; one that fails is NaN, with a warning.

    Parameters
    ----------
    scoring : dict of scorers, or callable
        A callable returns a number, or a dict of them.
    classes : ndarray of shape (n_classes,)
        All labels.
    estimator : estimator
        What will be fitted and scored.

    Raises
    ------
    ValueError
        If ``scoring`` holds what is no scorer.
    """

    def __init__(
        self,
        scoring: Any,  # noqa: ANN401 - scorers of any kind
        classes: NDArray[Any],
        estimator: BaseEstimator,
    ) -> None:
        self.classes = classes
        self.names = list(scoring) if isinstance(scoring, Mapping) else None
        # This one calls predict_proba once for all scores.
        self.scorer: Callable[..., Any] = check_scoring(
            estimator, scoring=scoring, raise_exc=False
        )
        self.scorers = {
            name: check_scoring(estimator, scoring=scoring[name])
            for name in self.names or []
        }

    def __call__(
        self,
        fitted: Any,  # noqa: ANN401 - a classifier of any kind
        X: Any,  # noqa: ANN401 - whatever it takes
        y: NDArray[Any],
        **params: Any,  # noqa: ANN401 - metadata of any kind
    ) -> dict[str, float]:
        """Give scores by name; none if a callable, whose names are unknown, fails."""
        if not hasattr(fitted, "predict_proba"):
            # The report refuses it, and says why.
            return dict.fromkeys(self.names or [], NAN)
        fitted = pad_classes(fitted, self.classes)
        try:
            found = self.scorer(fitted, X, y, **params)
        except Exception as error:
            if self.names is None:
                _warn_of_failure("scoring", repr(error))
                return {}
            # If one scorer needs a method that the classifier lacks, scikit-learn's
            # joint scorer gives no score at all.
            found = {
                name: _try_to_score(scorer, fitted, X, y)
                for name, scorer in self.scorers.items()
            }
        scores = found if isinstance(found, Mapping) else {"score": found}
        return {name: _read_number(name, score) for name, score in scores.items()}

    def get_metadata_routing(self) -> Any:  # noqa: ANN401 - scikit-learn's router
        """Tell scikit-learn what metadata the scorers ask for."""
        return self.scorer.get_metadata_routing()  # type: ignore[attr-defined]  # only asked where names are known


class PaddedClassifier(ClassifierMixin, BaseEstimator):
    """A fitted classifier that gives classes it has not seen the probability 0.

    Parameters
    ----------
    fitted : classifier
        Has seen some of the classes.
    classes : ndarray of shape (n_classes,)
        All labels, sorted.
    """

    def __init__(self, fitted: Any, classes: NDArray[Any]) -> None:  # noqa: ANN401 - of any kind
        self.fitted = fitted
        self.classes = classes
        self.classes_ = classes

    def fit(self, X: object, y: object) -> Self:
        """Do nothing: the classifier is fitted already."""
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:  # noqa: ANN401 - what it takes
        """Predict probabilities, (n, n_classes)."""
        return predict_all_classes(self.fitted, X, self.classes)

    def predict(self, X: Any) -> Any:  # noqa: ANN401 - what it takes, and labels
        """Predict labels, (n,)."""
        return self.fitted.predict(X)


def pad_classes(fitted: Any, classes: NDArray[Any]) -> Any:  # noqa: ANN401 - classifiers of any kind
    """Give a fitted classifier itself, or one with all classes if it lacks some."""
    seen = getattr(fitted, "classes_", classes)
    return fitted if len(seen) == len(classes) else PaddedClassifier(fitted, classes)


def predict_all_classes(
    fitted: Any,  # noqa: ANN401 - a classifier of any kind
    X: Any,  # noqa: ANN401 - whatever it takes
    classes: NDArray[Any],
) -> NDArray[np.float64]:
    """Predict probabilities, with a column for each class.

    Parameters
    ----------
    fitted : classifier
        Has seen some of the classes.
    X : array-like of shape (n_samples, ...)
        Rows.
    classes : ndarray of shape (n_classes,)
        All labels, sorted.

    Returns
    -------
    ndarray of shape (n_samples, n_classes)
        0 for a class that it has not seen.
    """
    found = fitted.predict_proba(X)
    probabilities = np.zeros((len(found), len(classes)))
    probabilities[:, np.searchsorted(classes, fitted.classes_)] = found
    return probabilities


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
    # In place of a score that fails, scikit-learn gives a traceback.
    reason = score.strip().rpartition("\n")[2] if isinstance(score, str) else score
    _warn_of_failure(f"the score {name!r}", f"{reason}")
    return NAN


def _warn_of_failure(what: str, reason: str) -> None:
    warn_user(
        f"In cross_validation_report, {what} failed on a fold and is NaN there: "
        f"{reason}"
    )
