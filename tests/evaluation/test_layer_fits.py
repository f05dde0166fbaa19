from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_info, threadpool_limits

import plug_sklearn.classifiers
from plug_sklearn import (
    LayerAggregator,
    PlugMLPClassifier,
    layer_sweep,
    probe_controls,
)

N = 90
Y = np.array(["no", "yes"])[np.arange(N) % 2]
GROUPS = np.arange(N) // 3
WEIGHT = np.linspace(0.5, 2, N)
X = np.random.default_rng(0).normal(size=(N, 4, 2, 16)).astype(np.float32)
X[:, 1:3, 0, 0] += 2 * (Y == "yes")[:, None]
PROBE = PlugMLPClassifier(width_cap=16, max_epochs=3, random_state=0, device="cpu")
LINEAR = LogisticRegression()
FOLDS = list(KFold(3).split(X))
GROUP_FOLDS = list(GroupKFold(3).split(X, Y, GROUPS))
SCORING = ["roc_auc", "neg_log_loss"]


def assert_scored_as_alone(sweep: pd.DataFrame, X: np.ndarray, **given: object) -> None:
    for (layer, part), rows in sweep.groupby(["layer", "part"]):
        expected = cross_validate(PROBE, X[:, layer, part], Y, scoring=SCORING, **given)
        for name in SCORING:
            np.testing.assert_allclose(rows[name], expected[f"test_{name}"], atol=1e-6)


def test_layers_fitted_at_once_are_scored_as_alone() -> None:
    sweep = layer_sweep(PROBE, X, Y, cv=3, scoring=SCORING)
    assert_scored_as_alone(sweep, X, cv=3)
    assert sweep["fold"].tolist() == 8 * [0, 1, 2]


def test_groups_and_weights_reach_layers_fitted_at_once() -> None:
    params = {"sample_weight": WEIGHT}
    sweep = layer_sweep(
        PROBE,
        X,
        Y,
        cv=GroupKFold(3),
        scoring=SCORING,
        groups=GROUPS,
        params=params,
        layers=[0, 1],
    )
    assert_scored_as_alone(sweep, X, cv=GROUP_FOLDS, params=params | {"groups": GROUPS})


def test_the_estimators_own_score_is_that_of_each_layer() -> None:
    sweep = layer_sweep(PROBE, X, Y, cv=KFold(2), layers=[0, 1], parts=[0])
    for layer, rows in sweep.groupby("layer"):
        expected = cross_validate(PROBE, X[:, layer, 0], Y, cv=KFold(2))["test_score"]
        np.testing.assert_allclose(rows["score"], expected)


def test_a_layer_that_cannot_be_fitted_leaves_the_others_their_scores() -> None:
    given = {"y": Y, "cv": 2, "scoring": "roc_auc", "layers": [0, 3]}
    spoilt = X.astype(np.float64)
    spoilt[0, 3, 1] = 1e39  # more than single precision holds
    with pytest.warns() as caught:
        sweep = layer_sweep(PROBE, spoilt, **given)
    assert FitFailedWarning in {warning.category for warning in caught}
    assert any("trained one by one" in str(warning.message) for warning in caught)
    failed = sweep["layer"].eq(3) & sweep["part"].eq(1)
    assert sweep["roc_auc"][failed].isna().all()
    expected = layer_sweep(PROBE, X, **given)["roc_auc"]
    np.testing.assert_allclose(sweep["roc_auc"][~failed], expected[~failed], atol=1e-6)


def test_a_monitor_that_fails_on_a_layer_leaves_the_others_their_scores() -> None:
    def score(probe: object, X: np.ndarray, y: np.ndarray) -> float:
        if X[:, 1].mean() > 50:
            raise RuntimeError("no score")
        return float(X[:, 0].sum())

    spoilt = X.copy()
    spoilt[::2, 3, 0, 1] = 1000
    folds = [(np.arange(60), np.arange(60, N)), (np.arange(1, 60, 2), np.arange(60, N))]
    probe = clone(PROBE).set_params(monitor=score)
    given = {"y": np.repeat([0, 1, 1, 0], [15, 15, 30, 30]), "parts": [0]}
    with pytest.warns() as caught:
        sweep = layer_sweep(probe, spoilt, cv=folds, scoring="accuracy", **given)
    assert FitFailedWarning in {warning.category for warning in caught}
    assert sweep["accuracy"].isna().tolist() == [*6 * [False], True, False]


def test_a_parameter_that_is_wrong_is_named() -> None:
    for wrong in ({"n_members": 0}, {"batch_size": "64"}, {"target_ratio": "a"}):
        probe = clone(PROBE).set_params(**wrong)
        (name,) = wrong
        with pytest.raises(ValueError, match=f"The '{name}' parameter of PlugMLPC"):
            layer_sweep(probe, X, Y, cv=3)


def count_times(sweep: pd.DataFrame) -> list[int]:
    """The numbers of rows that share a time of fitting, which tells joint fits."""
    return sweep.groupby("fit_time", sort=False).size().tolist()


def test_probes_of_all_layers_and_folds_are_trained_together() -> None:
    assert count_times(layer_sweep(PROBE, X, Y, cv=3)) == [24]


def test_no_more_probes_are_trained_together_than_256_megabytes_hold() -> None:
    wide = np.tile(X[:, :, :1], 256)
    sweep = layer_sweep(PROBE, wide, Y, cv=3, scoring="accuracy")
    assert count_times(sweep) == [6, 6]


@pytest.mark.parametrize("failing", [0, 1])
def test_a_sweep_that_cannot_train_together_says_so(failing: int) -> None:
    spoilt = X.astype(np.float64)
    spoilt[:30, failing, 0] = 1e39
    with pytest.warns() as caught:
        layer_sweep(PROBE, spoilt, Y, cv=FOLDS, layers=[0, 1], parts=[0])
    (said,) = (
        str(warning.message)
        for warning in caught
        if "trained one by one" in str(warning.message)
    )
    assert "training them together failed: ValueError: Input X contains" in said


class Picky(LogisticRegression):
    """Refuses large values."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> "Picky":
        if abs(X).max() > 1e38:
            raise ValueError("too large")
        return super().fit(X, y)


@pytest.mark.parametrize("probe", [PROBE, Picky()])
def test_a_layer_that_no_fold_can_be_fitted_to_is_named(probe: BaseEstimator) -> None:
    spoilt = X.astype(np.float64)
    spoilt[:, 3, 1] = 1e39
    with pytest.raises(ValueError, match="fits failed") as caught:
        layer_sweep(probe, spoilt, Y, cv=FOLDS, layers=[2, 3], parts=[1])
    assert caught.value.__notes__ == [
        "This happened at position 3 of axis 1 and 1 of axis 2."
    ]


@pytest.mark.parametrize(
    ("estimator", "params"),
    [
        (LogisticRegression(), {}),
        (make_pipeline(StandardScaler(), PROBE), {}),
        (clone(PROBE).set_params(sizing="budget"), {}),
        (PROBE, {"X_val": X[:, 0, 0], "y_val": Y}),
    ],
)
def test_other_probes_are_fitted_one_by_one(
    estimator: BaseEstimator, params: dict[str, object]
) -> None:
    sweep = layer_sweep(estimator, X, Y, cv=2, params=params, parts=[0])
    assert count_times(sweep) == 8 * [1]


def test_weights_of_a_wrong_length_are_refused_by_the_fit() -> None:
    with pytest.raises(ValueError, match="sample_weight"):
        layer_sweep(PROBE, X, Y, cv=3, params={"sample_weight": WEIGHT[:-1]})


def test_rows_of_no_fold_take_no_memory_of_those_trained_together() -> None:
    rows = np.zeros((1500, 2, 1, 4096), dtype=np.float32)
    rows[:N] = np.tile(X[:, :2, :1], 256)
    sweep = layer_sweep(PROBE, rows, np.resize(Y, 1500), cv=FOLDS, scoring="accuracy")
    assert count_times(sweep) == [6]


def count_blas_threads() -> list[int]:
    return [
        library["num_threads"]
        for library in threadpool_info()
        if library["user_api"] == "blas"
    ]


class ThreadCounter(LogisticRegression):
    """Keeps the largest number of threads of BLAS during its fit."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> "ThreadCounter":
        self.n_threads_ = max(count_blas_threads())
        return super().fit(X[:, :1], y)

    def predict(self, X: np.ndarray) -> np.ndarray:
        return super().predict(X[:, :1])


def read_threads(probe: ThreadCounter, X: object, y: object) -> int:
    return probe.n_threads_


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_small_probes_are_fitted_with_one_thread_of_blas(n_jobs: int | None) -> None:
    with threadpool_limits(2, user_api="blas"):
        sweep = layer_sweep(
            ThreadCounter(), X, Y, cv=2, scoring=read_threads, n_jobs=n_jobs
        )
        assert (sweep["score"] == 1).all()
        assert set(count_blas_threads()) == {2}


def test_threads_are_restored_after_an_error() -> None:
    with threadpool_limits(2, user_api="blas"):
        with pytest.raises(ValueError, match="fits failed"):
            layer_sweep(Picky(), 1e39 * X.astype(np.float64), Y, cv=2)
        assert set(count_blas_threads()) == {2}


def test_large_features_and_other_threads_keep_their_threads_of_blas() -> None:
    large = np.broadcast_to(X[:, :1, :1, :1], (N, 1, 1, 50_000))
    sweep = partial(layer_sweep, ThreadCounter(), y=Y, cv=2, scoring=read_threads)
    with threadpool_limits(2, user_api="blas"), ThreadPoolExecutor(1) as pool:
        assert (sweep(large)["score"] == 2).all()
        assert (pool.submit(sweep, X).result()["score"] == 2).all()


@pytest.mark.parametrize(
    ("probe", "is_joint"),
    [
        (make_pipeline(LayerAggregator(layers=[1]), PROBE), True),
        (make_pipeline(LayerAggregator(), PROBE), True),
        (PROBE, True),
        (make_pipeline(LayerAggregator(layers=[1]), StandardScaler(), PROBE), False),
        (make_pipeline(LayerAggregator(layers=[1]), LogisticRegression()), False),
    ],
)
def test_a_probe_beside_its_controls_is_scored_as_alone(
    probe: BaseEstimator, is_joint: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = "groups"
    if probe is not PROBE and isinstance(probe[-1], PlugMLPClassifier):
        groups = "plugmlpclassifier__groups"
    takes_groups = probe is PROBE or isinstance(probe[-1], PlugMLPClassifier)
    expected = cross_val_score(
        probe,
        X,
        Y,
        cv=GROUP_FOLDS,
        scoring="neg_log_loss",
        params={groups: GROUPS} if takes_groups else None,
    )
    calls = []
    fit_jointly = plug_sklearn.classifiers.fit_jointly
    monkeypatch.setattr(
        plug_sklearn.classifiers,
        "fit_jointly",
        lambda *given: [calls.append(len(given[0])), fit_jointly(*given)],
    )
    table = probe_controls(
        probe,
        X,
        Y,
        cv=GROUP_FOLDS,
        groups=GROUPS,
        scoring="neg_log_loss",
        controls=["majority"],
    )
    table = table[table["control"] == "probe"]
    assert table["neg_log_loss"].tolist() == pytest.approx(expected)
    assert table["fold"].tolist() == [0, 1, 2]
    assert calls == ([3] if is_joint else [])


def test_workers_change_nothing() -> None:
    one = layer_sweep(LINEAR, X, Y, cv=2, scoring="roc_auc")
    two = layer_sweep(LINEAR, X, Y, cv=2, scoring="roc_auc", n_jobs=2)
    times = ["fit_time", "score_time"]
    pd.testing.assert_frame_equal(one.drop(columns=times), two.drop(columns=times))


def test_groups_split_the_folds_and_reach_the_probe() -> None:
    class Recorder(PlugMLPClassifier):
        seen: list[np.ndarray] = []  # noqa: RUF012 - clones are to share it

        def fit(
            self, X: np.ndarray, y: np.ndarray, groups: object = None
        ) -> "Recorder":
            self.seen.append(groups)
            return super().fit(X, y, groups=groups)

    probe = Recorder(max_epochs=1, random_state=0, device="cpu")
    layer_sweep(probe, X, Y, layers=[1], parts=[0], cv=GroupKFold(3), groups=GROUPS)
    expected = [GROUPS[train] for train, _ in GroupKFold(3).split(X, Y, GROUPS)]
    for given, groups in zip(Recorder.seen, expected, strict=True):
        assert (np.asarray(given) == groups).all()


def test_fit_arguments_are_split_with_the_rows() -> None:
    params = {"sample_weight": np.linspace(0.1, 2, len(Y))}
    sweep = layer_sweep(
        LINEAR,
        X,
        Y,
        layers=[1],
        parts=[0],
        cv=KFold(2),
        scoring="neg_log_loss",
        params=params,
    )
    expected = cross_validate(
        LINEAR, X[:, 1, 0], Y, cv=KFold(2), scoring="neg_log_loss", params=params
    )
    np.testing.assert_allclose(sweep["neg_log_loss"], expected["test_score"])
