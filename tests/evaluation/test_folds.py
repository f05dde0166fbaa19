"""Folds, scores and chance levels; and groups reach every step that needs them."""

from typing import Any, Self

import numpy as np
import pytest
import sklearn
from _readable import GROUPS, X, Y
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.feature_selection import RFECV
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    LeaveOneGroupOut,
    RandomizedSearchCV,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from plug_sklearn import (
    PlugMLPClassifier,
    capacity_curve,
    compare_probes,
    cross_validation_report,
    layer_sweep,
)

PROBE = LogisticRegression()


def give_two(estimator: LogisticRegression, X: np.ndarray, y: np.ndarray) -> dict:
    return {"one": 1.0, "half": 0.5}


FEATURES = X[:, 1, 0].astype(np.float64)
GRID = {"C": [0.001, 1.0]}
QUICK: dict[str, Any] = {"max_epochs": 2, "random_state": 0, "device": "cpu"}


class PlainGroupSplitter:
    """Splits by group, and knows nothing of metadata routing."""

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Any:  # noqa: ANN401
        yield from GroupKFold(2).split(X, y, groups)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:  # noqa: ANN401
        return 2


@pytest.mark.parametrize(
    "search",
    [
        GridSearchCV(LogisticRegression(), GRID, cv=GroupKFold(2)),
        RandomizedSearchCV(
            LogisticRegression(), GRID, n_iter=2, random_state=0, cv=LeaveOneGroupOut()
        ),
        GridSearchCV(LogisticRegression(), GRID, cv=PlainGroupSplitter()),
        RFECV(LogisticRegression(), cv=GroupKFold(2)),
    ],
)
@pytest.mark.parametrize("is_piped", [False, True])
def test_splitter_of_a_search_is_given_the_training_rows_groups(
    search: BaseEstimator, is_piped: bool
) -> None:
    estimator = make_pipeline(StandardScaler(), search) if is_piped else search
    report = cross_validation_report(
        estimator, FEATURES, Y, cv=GroupKFold(3), groups=GROUPS, scoring="roc_auc"
    )
    columns = ["proba_0", "proba_1"]
    for fold, (train, test) in enumerate(GroupKFold(3).split(FEATURES, Y, GROUPS)):
        scaler = StandardScaler().fit(FEATURES[train])
        scale = scaler.transform if is_piped else np.asarray
        alone = clone(search).fit(
            scale(FEATURES[train]), Y[train], groups=GROUPS[train]
        )
        found = report.predictions.loc[report.predictions["fold"] == fold, columns]
        assert_allclose(found, alone.predict_proba(scale(FEATURES[test])))


def test_splitter_that_ignores_groups_is_given_none() -> None:
    # It would warn of them.
    search = GridSearchCV(LogisticRegression(), GRID, cv=2)
    for estimator in (search, RFECV(LogisticRegression(), cv=2)):
        report = cross_validation_report(
            estimator, FEATURES, Y, cv=GroupKFold(2), groups=GROUPS, scoring="roc_auc"
        )
        assert report.scores["roc_auc"].notna().all()


def test_probe_in_a_pipeline_of_a_search_is_given_groups_too() -> None:
    pipe = make_pipeline(StandardScaler(), Recorder())
    search = GridSearchCV(pipe, {"recorder__C": [1.0]}, cv=GroupKFold(2))
    report = cross_validation_report(
        search, FEATURES, Y, cv=GroupKFold(2), groups=GROUPS, scoring="roc_auc"
    )
    for fitted, (train, _) in zip(
        report.estimators, GroupKFold(2).split(FEATURES, Y, GROUPS), strict=True
    ):
        best = fitted.best_estimator_[-1]
        np.testing.assert_array_equal(best.groups_, GROUPS[train])


class Recorder(LogisticRegression):
    """Keeps the groups that it is given."""

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:  # noqa: ANN401
        self.groups_ = groups
        if groups is not None:
            assert len(groups) == len(X)
        return super().fit(X, y)


class EverySecondRow(BaseEstimator):
    """A resampler as imbalanced-learn has them: fit_resample, and no transform."""

    def fit_resample(self, X: NDArray[Any], y: NDArray[Any]) -> tuple[Any, Any]:
        keep = np.sort(np.r_[0 : len(X) : 4, 1 : len(X) : 4])
        return X[keep], y[keep]


class ResamplingPipeline(Pipeline):
    """Resamples in ``fit`` alone, as imbalanced-learn's pipeline does."""

    def fit(self, X: Any, y: Any, **params: Any) -> Self:  # noqa: ANN401
        last, given = self.steps[-1][0], {}
        for name, value in params.items():
            step, argument = name.split("__")
            assert step == last
            given[argument] = value
        X, y = self.steps[0][1].fit_resample(X, y)
        self.steps[-1][1].fit(X, y, **given)
        return self

    def predict_proba(self, X: Any) -> Any:  # noqa: ANN401
        return self.steps[-1][1].predict_proba(X)

    def predict(self, X: Any) -> Any:  # noqa: ANN401
        return self.steps[-1][1].predict(X)


@pytest.mark.parametrize("last", [Recorder(), PlugMLPClassifier(**QUICK)])
def test_probe_behind_a_resampler_is_given_none(last: BaseEstimator) -> None:
    pipe = ResamplingPipeline([("resampler", EverySecondRow()), ("probe", last)])
    report = cross_validation_report(
        pipe, FEATURES, Y, cv=GroupKFold(2), groups=GROUPS, scoring="accuracy"
    )
    assert report.scores["accuracy"].notna().all()
    assert getattr(report.estimators[0].steps[-1][1], "groups_", None) is None


def test_comparison_gives_groups_to_inner_searches() -> None:
    search = GridSearchCV(LogisticRegression(), GRID, cv=GroupKFold(2))
    table = compare_probes(
        search,
        LogisticRegression(),
        FEATURES,
        Y,
        cv=GroupKFold(3),
        groups=GROUPS,
        scoring="roc_auc",
    )
    assert table.notna().all(axis=None)


@pytest.mark.parametrize(
    ("function", "given"),
    [
        (layer_sweep, {"X": X}),
        (capacity_curve, {"X": FEATURES, "param_name": "C"}),
        (cross_validation_report, {"X": FEATURES}),
    ],
)
def test_no_folds_are_refused(function: Any, given: dict[str, Any]) -> None:  # noqa: ANN401
    told = rf"'cv' parameter of {function.__name__} must give .* Got \[\]"
    with pytest.raises(ValueError, match=told):
        function(PROBE, y=Y, cv=[], **given)


def test_no_folds_are_refused_for_two_probes() -> None:
    with pytest.raises(ValueError, match="'cv' parameter of compare_probes must give"):
        compare_probes(PROBE, PROBE, FEATURES, Y, cv=[])


def test_folds_of_a_classifier_are_stratified_and_of_a_regressor_not() -> None:
    y = np.sort(Y)
    scores = {"accuracy": "accuracy", "mean": take_mean}
    for estimator, scoring in ((PROBE, scores), (LinearRegression(), take_mean)):
        sweep = layer_sweep(estimator, X, y, cv=3, scoring=scoring, layers=[1])
        means = sweep["mean" if estimator is PROBE else "score"]
        assert np.allclose(means, 0.5) == (estimator is PROBE)


def take_mean(estimator: object, X: object, y: np.ndarray) -> float:
    return float(np.mean(y))


@pytest.mark.parametrize(
    ("scoring", "names"),
    [
        (None, ["score"]),
        ("roc_auc", ["roc_auc"]),
        (["accuracy", "f1"], ["accuracy", "f1"]),
        ({"hits": "accuracy"}, ["hits"]),
        (take_mean, ["score"]),
        (give_two, ["one", "half"]),
    ],
)
def test_scores_go_by_their_names(scoring: Any, names: list[str]) -> None:  # noqa: ANN401
    table = compare_probes(PROBE, PROBE, FEATURES, Y, cv=2, scoring=scoring)
    assert table.index.tolist() == names
    columns = list(layer_sweep(PROBE, X, Y, cv=2, scoring=scoring).columns)
    assert columns[3:-2] == [n for name in names for n in (name, f"{name}_chance")]


def test_chance_is_a_half_in_roc_auc_and_the_larger_share_in_accuracy() -> None:
    y = np.arange(120) % 4 == 0
    scoring = ["roc_auc", "accuracy", "neg_log_loss"]
    chance = layer_sweep(PROBE, X, y, cv=3, scoring=scoring, layers=[0])
    entropy = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    assert_allclose(chance["roc_auc_chance"], 0.5)
    assert_allclose(chance["accuracy_chance"], 0.75)
    assert_allclose(chance["neg_log_loss_chance"], -entropy)


def test_chance_of_numbers_is_their_mean() -> None:
    y = FEATURES[:, 0]
    folds = KFold(3)
    sweep = layer_sweep(LinearRegression(), X, y, cv=folds, scoring="r2", layers=[0])
    expected = [
        r2_score(y[test], np.full(len(test), y[train].mean()))
        for train, test in folds.split(y)
    ]
    for _, rows in sweep.groupby("part"):
        assert_allclose(rows["r2_chance"], expected)


def test_groups_that_the_user_gives_to_fit_are_kept() -> None:
    own = GROUPS[::-1].copy()
    pipeline = make_pipeline(StandardScaler(), Recorder())
    for estimator, name in (
        (Recorder(), "groups"),
        (pipeline, "recorder__groups"),
        (make_pipeline(pipeline), "pipeline__recorder__groups"),
    ):
        for params, expected in ((None, GROUPS), ({name: own}, own)):
            report = cross_validation_report(
                estimator,
                FEATURES,
                Y,
                cv=GroupKFold(2),
                groups=GROUPS,
                scoring="accuracy",
                params=params,
            )
            folds = GroupKFold(2).split(FEATURES, Y, GROUPS)
            for fitted, (train, _) in zip(report.estimators, folds, strict=True):
                while isinstance(fitted, Pipeline):
                    fitted = fitted[-1]
                np.testing.assert_array_equal(fitted.groups_, expected[train])


def test_metadata_routing_decides_where_it_is_on() -> None:
    with sklearn.config_context(enable_metadata_routing=True):
        for requested in (False, True):
            probe = Recorder().set_fit_request(groups=requested)
            report = cross_validation_report(
                probe,
                FEATURES,
                Y,
                cv=GroupKFold(2),
                groups=GROUPS,
                scoring="accuracy",
                params={"groups": GROUPS} if requested else None,
            )
            assert (report.estimators[0].groups_ is not None) == requested
