import numpy as np
import pytest
import sklearn
from _readable import GROUPS, X, Y
from numpy.testing import assert_allclose
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GroupKFold, KFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from plug_sklearn import PlugMLPClassifier
from plug_sklearn.evaluation._folds import (
    collect_fit_params,
    score_chance,
    score_folds,
    split_folds,
)
from plug_sklearn.evaluation._tables import list_scores

FEATURES = X[:, 1, 0]
PROBE = LogisticRegression()


def test_folds_are_scikit_learns() -> None:
    folds = split_folds(PROBE, FEATURES, Y, GroupKFold(4), GROUPS)
    expected = list(GroupKFold(4).split(FEATURES, Y, GROUPS))
    for (train, test), (train_, test_) in zip(folds, expected, strict=True):
        assert (train == train_).all()
        assert (test == test_).all()


def test_folds_of_a_classifier_are_stratified_and_of_a_regressor_not() -> None:
    y = np.sort(Y)
    for estimator, stratified in ((PROBE, True), (LinearRegression(), False)):
        folds = split_folds(estimator, FEATURES, y, 3, None)
        shares = [y[test].mean() for _, test in folds]
        assert np.allclose(shares, 0.5) == stratified


def test_no_folds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'cv' parameter must give .* Got \[\]"):
        split_folds(PROBE, FEATURES, Y, [], None)


def test_scores_are_cross_validates() -> None:
    folds = split_folds(PROBE, FEATURES, Y, 4, None)
    scoring = ["roc_auc", "accuracy"]
    table, estimators = score_folds(
        PROBE, FEATURES, Y, folds, scoring=scoring, fit_params={}
    )
    expected = cross_validate(PROBE, FEATURES, Y, cv=4, scoring=scoring)
    for name in scoring:
        assert_allclose(table[name], expected[f"test_{name}"])
    assert len(estimators) == 4
    assert list_scores(table) == scoring


def give_two(estimator: LogisticRegression, X: np.ndarray, y: np.ndarray) -> dict:
    return {"one": 1.0, "half": 0.5}


@pytest.mark.parametrize(
    ("scoring", "names"),
    [
        (None, ["score"]),
        ("roc_auc", ["roc_auc"]),
        (["accuracy", "f1"], ["accuracy", "f1"]),
        ({"hits": "accuracy"}, ["hits"]),
        (lambda estimator, X, y: 1.0, ["score"]),
        (give_two, ["one", "half"]),
    ],
)
def test_scores_go_by_their_names(scoring: object, names: list[str]) -> None:
    folds = split_folds(PROBE, FEATURES, Y, 2, None)
    table, _ = score_folds(PROBE, FEATURES, Y, folds, scoring=scoring, fit_params={})
    assert list_scores(table) == names


def test_chance_is_a_half_in_roc_auc_and_the_larger_share_in_accuracy() -> None:
    y = np.arange(120) % 4 == 0
    folds = split_folds(PROBE, FEATURES, y, 3, None)
    chance = score_chance(PROBE, y, folds, ["roc_auc", "accuracy", "neg_log_loss"])
    entropy = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    assert_allclose(chance["roc_auc"], 0.5)
    assert_allclose(chance["accuracy"], 0.75)
    assert_allclose(chance["neg_log_loss"], -entropy)


def test_chance_of_numbers_is_their_mean() -> None:
    y = FEATURES[:, 0]
    folds = split_folds(LinearRegression(), FEATURES, y, KFold(3), None)
    chance = score_chance(LinearRegression(), y, folds, "r2")
    assert (chance["r2"] <= 0).all()
    assert (chance["r2"] > -0.1).all()


def test_groups_reach_the_fit_that_takes_them_alone() -> None:
    assert collect_fit_params(PlugMLPClassifier(), None, GROUPS)["groups"] is GROUPS
    assert collect_fit_params(PROBE, {"sample_weight": 1}, GROUPS) == {
        "sample_weight": 1
    }
    given = collect_fit_params(PlugMLPClassifier(), {"groups": Y}, GROUPS)
    assert given["groups"] is Y


def test_groups_reach_the_last_step_of_a_pipeline_under_its_name() -> None:
    pipeline = make_pipeline(StandardScaler(), PlugMLPClassifier())
    name = "plugmlpclassifier__groups"
    assert collect_fit_params(pipeline, None, GROUPS)[name] is GROUPS
    assert collect_fit_params(pipeline, {name: Y}, GROUPS)[name] is Y
    outer = make_pipeline(pipeline)
    assert list(collect_fit_params(outer, None, GROUPS)) == [f"pipeline__{name}"]
    for last in (PROBE, "passthrough"):
        assert collect_fit_params(make_pipeline(last), None, GROUPS) == {}


def test_metadata_routing_decides_where_it_is_on() -> None:
    with sklearn.config_context(enable_metadata_routing=True):
        assert collect_fit_params(PlugMLPClassifier(), None, GROUPS) == {}
