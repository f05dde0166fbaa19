"""Which estimators a report takes, and what a refusal costs."""

from typing import Any, Self

import numpy as np
import pytest
from _readable import X, Y
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import (
    GridSearchCV,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.utils.metaestimators import available_if

from plug_sklearn import cross_validation_report

FEATURES = X[:, 1, 0].astype(np.float64)


class Unfit(LogisticRegression):
    """Must not be fitted."""

    def fit(self, X: object, y: object) -> "Unfit":
        raise AssertionError


STACK = StackingClassifier([("one", LogisticRegression())], cv=2)


@pytest.mark.parametrize(
    "estimator",
    [
        STACK,
        make_pipeline(StandardScaler(), STACK),
        GridSearchCV(STACK, {"passthrough": [True]}, cv=2),
        GridSearchCV(
            make_pipeline(StandardScaler(), LinearSVC()),
            {"linearsvc": [LogisticRegression()]},
            cv=2,
        ),
    ],
)
def test_estimator_that_predicts_probabilities_once_fitted_is_taken(
    estimator: BaseEstimator,
) -> None:
    assert not hasattr(estimator, "predict_proba")
    report = cross_validation_report(estimator, FEATURES, Y, cv=2, scoring="roc_auc")
    assert report.scores["roc_auc"].notna().all()
    assert report.scores["fold"].tolist() == [0, 1]


class Late(ClassifierMixin, BaseEstimator):
    """Tells only after ``fit`` whether it predicts probabilities."""

    n_fits = 0

    def __init__(self, learns: bool = True) -> None:
        self.learns = learns

    def fit(self, X: Any, y: Any) -> Self:  # noqa: ANN401
        Late.n_fits += 1
        self.inner_ = LogisticRegression().fit(X, y)
        self.classes_ = self.inner_.classes_
        return self

    @available_if(lambda self: self.learns and hasattr(self, "inner_"))
    def predict_proba(self, X: Any) -> Any:  # noqa: ANN401
        return self.inner_.predict_proba(X)

    def predict(self, X: Any) -> Any:  # noqa: ANN401
        return self.inner_.predict(X)


def test_estimator_without_probabilities_costs_one_fit_at_most() -> None:
    cross_validation_report(Late(), FEATURES, Y, cv=3)
    Late.n_fits = 0
    with pytest.raises(ValueError, match=r"must predict probabilities\. Got Late"):
        cross_validation_report(Late(learns=False), FEATURES, Y, cv=3)
    assert Late.n_fits == 1


@pytest.mark.parametrize(
    "estimator", [LinearSVC(), SVC(), make_pipeline(StandardScaler(), SGDClassifier())]
)
def test_estimator_known_to_predict_none_is_not_fitted(
    estimator: BaseEstimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in (LinearSVC, SVC, SGDClassifier):
        monkeypatch.setattr(kind, "fit", Unfit.fit)
    with pytest.raises(ValueError, match="must predict probabilities"):
        cross_validation_report(estimator, FEATURES, Y)


@pytest.mark.parametrize("thing", ["text", None, np.ones(3)])
def test_what_is_no_classifier_is_refused(thing: object) -> None:
    with pytest.raises(ValueError, match="must predict probabilities"):
        cross_validation_report(thing, FEATURES, Y)
