"""A score that fails is NaN where it fails, and costs no other."""

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import sklearn
from _readable import GROUPS, X, Y
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    log_loss,
    make_scorer,
    roc_auc_score,
)
from sklearn.model_selection import (
    GroupKFold,
    LeaveOneGroupOut,
    cross_val_score,
    cross_validate,
)
from sklearn.naive_bayes import GaussianNB

from plug_sklearn import cross_validation_report

RNG = np.random.default_rng(0)
ROWS = np.arange(90)
NAMES = np.array(["ant", "bee", "cat"])


FEATURES = X[:, 1, 0].astype(np.float64)
PROBE = LogisticRegression()
#: All rows of class "cat" are in one group, so that one fold never trains on it.
RARE = np.where(GROUPS == 3, "cat", NAMES[Y])
FOLDS = list(GroupKFold(4).split(FEATURES, RARE, GROUPS))
WITHOUT_CAT = [n for n, (train, _) in enumerate(FOLDS) if "cat" not in RARE[train]]


@pytest.mark.parametrize(
    ("y", "area"),
    [(Y, "roc_auc"), (NAMES[Y], "roc_auc"), (NAMES[np.arange(120) % 3], "roc_auc_ovr")],
)
def test_default_scores_are_those_of_scikit_learns_scorers(
    y: np.ndarray, area: str
) -> None:
    report = cross_validation_report(PROBE, FEATURES, y, cv=4)
    names = ["accuracy", area, "neg_log_loss", "neg_brier_score"]
    assert report.overall.index.tolist() == names
    if y.dtype.kind == "U" and len(np.unique(y)) == 2:
        names.remove("neg_brier_score")  # scikit-learn's takes no such labels
    expected = cross_validate(PROBE, FEATURES, y, cv=4, scoring=names)
    for name in names:
        assert_allclose(report.scores[name], expected[f"test_{name}"])


def test_fold_that_tests_one_of_three_classes_has_losses_and_no_area() -> None:
    y = NAMES[np.arange(120) % 3]
    test = np.arange(1, 60, 3)
    train = np.setdiff1d(np.arange(120), test)
    with pytest.warns(UserWarning, match="'roc_auc_ovr' is undefined in folds"):
        report = cross_validation_report(PROBE, FEATURES, y, cv=[(train, test)])
    p = (
        LogisticRegression()
        .fit(FEATURES[train], y[train])
        .predict_proba(FEATURES[test])
    )
    (scores,) = report.scores.to_dict("records")
    assert_allclose(scores["neg_log_loss"], np.log(p[:, 1]).mean())
    errors = p - np.array([0, 1, 0])
    assert_allclose(scores["neg_brier_score"], -(errors**2).sum(axis=1).mean())


def score_coefficients(estimator: Any, X: Any, y: Any) -> float:  # noqa: ANN401
    return float(abs(estimator.coef_).max())


def score_by_decision(estimator: Any, X: Any, y: Any) -> dict[str, float]:  # noqa: ANN401
    return {
        "decided": accuracy_score(y, estimator.decision_function(X) > 0),
        "auc": roc_auc_score(y, estimator.decision_function(X)),
    }


def fail_on_the_first_row(estimator: Any, X: Any, y: Any) -> dict[str, float]:  # noqa: ANN401
    if X[0, 0] == FEATURES[0, 0]:
        raise RuntimeError("not on the first row")
    return {"one": 1.0, "two": 2.0}


def give_text(estimator: object, X: object, y: object) -> str:
    return "good"


def test_scores_that_cannot_be_pooled_keep_their_folds() -> None:
    report = cross_validation_report(
        PROBE, FEATURES, Y, cv=3, scoring=score_coefficients
    )
    expected = [abs(fitted.coef_).max() for fitted in report.estimators]
    assert_allclose(report.scores["score"], expected)
    assert np.isnan(report.overall.loc["score", "pooled"])
    assert_allclose(report.overall.loc["score", "mean"], np.mean(expected))
    report = cross_validation_report(
        PROBE, FEATURES, Y, cv=3, scoring=score_by_decision
    )
    assert report.overall.index.tolist() == ["decided", "auc"]
    assert report.scores[["decided", "auc"]].notna().all(axis=None)
    assert report.overall["pooled"].isna().all()


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_scorer_that_fails_on_a_fold_is_nan_there_alone(n_jobs: int | None) -> None:
    with pytest.warns(UserWarning) as warned:
        report = cross_validation_report(
            PROBE, FEATURES, Y, cv=3, scoring=fail_on_the_first_row, n_jobs=n_jobs
        )
    said = "\n".join(str(w.message) for w in warned)
    assert "'one' is undefined in folds [0]" in said
    # Workers of other processes print their warnings.
    assert n_jobs or "not on the first row" in said
    assert report.scores["one"].isna().tolist() == [True, False, False]
    assert report.overall["mean"].to_dict() == {"one": 1.0, "two": 2.0}
    assert len(report.predictions) == len(Y)


def test_one_score_that_fails_costs_no_other() -> None:
    hinge = make_scorer(accuracy_score, response_method="decision_function")
    scoring = {
        "accuracy": "accuracy",
        "text": give_text,
        "several": score_by_decision,
        "hinge": hinge,
    }
    for probe in (PROBE, GaussianNB()):
        with pytest.warns(UserWarning) as warned:
            report = cross_validation_report(probe, FEATURES, Y, cv=2, scoring=scoring)
        said = "\n".join(str(w.message) for w in warned)
        assert "the score 'text' failed on a fold and is NaN there: good" in said
        expected = cross_val_score(probe, FEATURES, Y, cv=2)
        assert_allclose(report.scores["accuracy"], expected)
        assert report.scores[["text", "several", "hinge"]].isna().all(axis=None)
        assert np.isfinite(report.overall.loc["accuracy", "pooled"])


@pytest.mark.parametrize(
    "scoring", [None, ["neg_log_loss", "neg_brier_score"], "neg_log_loss"]
)
def test_class_that_a_fold_did_not_train_on_counts_as_probability_zero(
    scoring: Any,  # noqa: ANN401
) -> None:
    assert WITHOUT_CAT
    with pytest.warns(UserWarning) if scoring is None else nullcontext() as warned:
        report = cross_validation_report(
            PROBE, FEATURES, RARE, cv=FOLDS, scoring=scoring
        )
    if scoring is None:
        # Where a fold tests no "cat", the area is undefined; nothing else is.
        assert all("'roc_auc_ovr' is undefined" in str(w.message) for w in warned)
    for fold, (train, test) in enumerate(FOLDS):
        plain = LogisticRegression().fit(FEATURES[train], RARE[train])
        p = np.zeros((len(test), 3))
        p[:, np.isin(NAMES, plain.classes_)] = plain.predict_proba(FEATURES[test])
        assert_allclose(
            report.scores.loc[fold, "neg_log_loss"],
            -log_loss(RARE[test], p, labels=NAMES),
        )
        if "neg_brier_score" in report.scores:
            one_hot = RARE[test][:, None] == NAMES
            assert_allclose(
                report.scores.loc[fold, "neg_brier_score"],
                -((p - one_hot) ** 2).sum(axis=1).mean(),
            )
    worst = report.scores["neg_log_loss"].idxmin()
    assert worst in WITHOUT_CAT


def test_fold_that_trains_on_one_class_alone_is_scored() -> None:
    y = np.where(GROUPS < 10, 0, 1)
    folds = [(np.arange(60), np.arange(60, 120)), (np.arange(30, 120), np.arange(30))]
    with pytest.warns(UserWarning, match="'roc_auc' is undefined"):
        report = cross_validation_report(GaussianNB(), FEATURES, y, cv=folds)
    assert report.scores["accuracy"].notna().all()
    assert report.scores.loc[0, "accuracy"] == 0
    expected = log_loss(y[60:], np.tile([1.0, 0.0], (60, 1)), labels=[0, 1])
    assert_allclose(report.scores.loc[0, "neg_log_loss"], -expected)


def test_scorers_are_given_the_metadata_that_they_ask_for() -> None:
    weights = np.where(np.arange(120) % 3, 0.1, 1.0)
    with sklearn.config_context(enable_metadata_routing=True):
        scorer = make_scorer(accuracy_score).set_score_request(sample_weight=True)
        probe = LogisticRegression().set_fit_request(sample_weight=True)
        for scoring, name in ((scorer, "score"), ({"hits": scorer}, "hits")):
            report = cross_validation_report(
                probe,
                FEATURES,
                Y,
                cv=2,
                scoring=scoring,
                params={"sample_weight": weights},
            )
            for fold, test in enumerate(([*range(60)], [*range(60, 120)])):
                fitted = report.estimators[fold]
                expected = accuracy_score(
                    Y[test], fitted.predict(FEATURES[test]), sample_weight=weights[test]
                )
                assert_allclose(report.scores.loc[fold, name], expected)


def test_scores_are_unchanged_where_each_fold_has_all_classes() -> None:
    three = NAMES[(Y + np.arange(120) // 40) % 3]
    report = cross_validation_report(
        PROBE, FEATURES, three, cv=LeaveOneGroupOut(), groups=np.arange(120) % 4
    )
    for fold, fitted in enumerate(report.estimators):
        test = np.arange(120) % 4 == fold
        p = fitted.predict_proba(FEATURES[test])
        expected = roc_auc_score(three[test], p, multi_class="ovr")
        assert_allclose(report.scores.loc[fold, "roc_auc_ovr"], expected)
