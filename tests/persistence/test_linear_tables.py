"""Linear probes of scikit-learn, and what is around them, as plain numbers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from _fitted import QUICK, X, Y, fit_linear, rewrite
from numpy.testing import assert_array_equal
from sklearn.base import BaseEstimator, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import FixedThresholdClassifier, ShuffleSplit
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    RobustScaler,
    StandardScaler,
)

from plug_sklearn import (
    HFEmbeddingTransformer,
    LayerAggregator,
    PlugMLPClassifier,
    load_artifacts,
    probe_direction,
    save_artifacts,
    threshold_at_fpr,
)

FLAT = X.reshape(60, -1)
THREE = np.array(["a", "b", "c"])[np.arange(60) % 3]
PROBES = [
    LogisticRegression(C=0.1),
    LogisticRegression(fit_intercept=False, class_weight={"true": 2.0}),
    LogisticRegression(solver="liblinear"),
    RidgeClassifier(alpha=2.0),
    RidgeClassifier(fit_intercept=False, solver="lsqr"),
    LinearDiscriminantAnalysis(),
    LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"),
    LinearDiscriminantAnalysis(solver="eigen", n_components=1),
]
STEPS: list[BaseEstimator] = [
    StandardScaler(),
    MinMaxScaler((-1, 1)),
    RobustScaler(),
    RobustScaler(with_centering=False),
    RobustScaler(with_scaling=False),
    MaxAbsScaler(),
    PCA(3),
    PCA(0.9, whiten=True),
]


def save_and_load(fitted: BaseEstimator, folder: Path) -> Any:  # noqa: ANN401 - of any kind
    save_artifacts(fitted, folder / "probe")
    return load_artifacts(folder / "probe")


def assert_equal_predictions(loaded: Any, fitted: Any, rows: np.ndarray) -> None:  # noqa: ANN401 - of any kind
    for method in ("decision_function", "predict_proba", "predict", "transform"):
        # Without directions, a discriminant analysis cannot transform.
        if hasattr(fitted, method) and not (
            method == "transform" and "lsqr" in str(fitted)
        ):
            found, expected = (getattr(one, method)(rows) for one in (loaded, fitted))
            assert_array_equal(found, expected)
            assert found.dtype == expected.dtype


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("probe", PROBES)
def test_probes_predict_the_same(
    probe: BaseEstimator, dtype: type, tmp_path: Path
) -> None:
    rows = FLAT.astype(dtype)
    for labels in (Y, THREE):
        weights = getattr(probe, "class_weight", None)
        if labels is THREE and (
            weights or probe.get_params().get("solver") == "liblinear"
        ):
            continue
        fitted = clone(probe).fit(rows, labels)
        loaded = save_and_load(fitted, tmp_path)
        assert_equal_predictions(loaded, fitted, rows)
        assert repr(loaded) == repr(fitted)
        assert_array_equal(loaded.classes_, fitted.classes_)
        again = clone(loaded).fit(rows, labels)
        assert_equal_predictions(again, fitted, rows)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("step", STEPS)
def test_steps_transform_the_same(
    step: BaseEstimator, dtype: type, tmp_path: Path
) -> None:
    rows = FLAT.astype(dtype)
    fitted = clone(step).fit(rows)
    loaded = save_and_load(fitted, tmp_path)
    assert_equal_predictions(loaded, fitted, rows)
    there, back = (
        one.inverse_transform(one.transform(rows)) for one in (fitted, loaded)
    )
    assert_array_equal(there, back)
    assert repr(loaded) == repr(fitted)
    names = [list(one.get_feature_names_out()) for one in (fitted, loaded)]
    assert names[0] == names[1]


@pytest.mark.parametrize("method", ["sigmoid", "isotonic", "temperature"])
@pytest.mark.parametrize(
    ("inner", "ensemble"),
    [
        (LogisticRegression(), True),
        (RidgeClassifier(), False),
        (make_pipeline(StandardScaler(), PCA(3), LogisticRegression()), True),
        (FrozenEstimator(LogisticRegression().fit(FLAT, Y)), "auto"),
        (PlugMLPClassifier(**QUICK), False),
    ],
)
def test_calibrated_classifiers_predict_the_same(
    inner: BaseEstimator, ensemble: bool | str, method: str, tmp_path: Path
) -> None:
    frozen = isinstance(inner, FrozenEstimator)
    for labels in (Y,) if frozen else (Y, THREE):
        fitted = CalibratedClassifierCV(
            inner, method=method, ensemble=ensemble, cv=None if frozen else 2
        ).fit(FLAT, labels)
        loaded = save_and_load(fitted, tmp_path)
        assert_equal_predictions(loaded, fitted, FLAT)
        assert loaded.n_features_in_ == 24
        clone(loaded)


def test_thresholds_are_kept_around_a_whole_pipeline(tmp_path: Path) -> None:
    pipeline = make_pipeline(
        LayerAggregator(layers=[1], parts=[0]),
        RobustScaler(),
        CalibratedClassifierCV(LogisticRegression(), cv=2),
    ).fit(X, Y)
    monitor = threshold_at_fpr(pipeline, X, Y, 0.3, confidence=0.8)
    loaded = save_and_load(monitor, tmp_path)
    assert loaded.threshold == monitor.threshold
    assert_equal_predictions(loaded, monitor, X)
    own = FixedThresholdClassifier(
        LogisticRegression(), threshold=0.2, pos_label="false"
    ).fit(FLAT, Y)
    loaded = save_and_load(own, tmp_path)
    assert_equal_predictions(loaded, own, FLAT)
    assert repr(loaded) == repr(own)
    assert_equal_predictions(clone(loaded).fit(FLAT, Y), own, FLAT)


def test_linear_probe_on_texts_comes_back_with_its_direction(
    llama: str, tmp_path: Path
) -> None:
    texts = ["Paris is in France.", "Lima is in Peru.", "Gold is Fe.", "1 2 3"] * 5
    fitted = make_pipeline(
        HFEmbeddingTransformer(llama, layers=[1], device="cpu"),
        LayerAggregator(),
        StandardScaler(),
        LogisticRegression(),
    ).fit(texts, np.arange(20) % 2)
    loaded = save_and_load(fitted, tmp_path)
    assert_array_equal(loaded.predict_proba(texts), fitted.predict_proba(texts))
    vectors = [probe_direction(one).vectors for one in (loaded, fitted)]
    assert vectors[0].equals(vectors[1])


def test_frames_go_in_and_out_as_before(tmp_path: Path) -> None:
    fitted = make_pipeline(MinMaxScaler(), PCA(3), LogisticRegression())
    fitted.set_output(transform="pandas")
    frame = LayerAggregator().set_output(transform="pandas").fit_transform(X)
    fitted.fit(frame, Y)
    loaded = save_and_load(fitted, tmp_path)
    assert loaded[:-1].transform(frame).equals(fitted[:-1].transform(frame))
    assert list(loaded.feature_names_in_) == list(frame.columns)


def test_pipelines_may_hold_pipelines(tmp_path: Path) -> None:
    inner = make_pipeline(StandardScaler(), PCA(3))
    fitted = Pipeline([("a", inner), ("b", LogisticRegression())]).fit(FLAT, Y)
    assert_equal_predictions(save_and_load(fitted, tmp_path), fitted, FLAT)


def test_only_parameters_that_were_changed_are_written(tmp_path: Path) -> None:
    # Other releases of scikit-learn lack some parameters, or have more.
    fitted = LogisticRegression(C=0.5, max_iter=np.int64(200)).fit(FLAT, Y)
    _, description = save_artifacts(fitted, tmp_path / "probe")
    found = json.loads(description.read_text())["estimator"]
    assert found["parameters"] == {"C": 0.5, "max_iter": 200}


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (
            CalibratedClassifierCV(LogisticRegression(), cv=ShuffleSplit(2)),
            "The 'cv' parameter of CalibratedClassifierCV must be None, a bool",
        ),
        (
            LogisticRegression(random_state=np.random.RandomState(0)),
            "The 'random_state' parameter of LogisticRegression must be None,",
        ),
    ],
)
def test_what_is_no_plain_value_is_named(
    estimator: BaseEstimator, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        save_artifacts(estimator.fit(FLAT, Y), tmp_path / "probe")
    assert not list(tmp_path.iterdir())


Change = Callable[[dict[str, Any]], object]


def test_sparse_weights_are_refused_with_the_way_out(tmp_path: Path) -> None:
    fitted = LogisticRegression().fit(FLAT, Y).sparsify()
    with pytest.raises(ValueError, match=r"call densify\(\) first"):
        save_artifacts(fitted, tmp_path / "probe")
    assert_array_equal(
        save_and_load(fitted.densify(), tmp_path).coef_, fitted.densify().coef_
    )


def first_step(found: dict[str, Any], number: int) -> dict[str, Any]:
    estimator = found["estimator"]["members"][0]["estimator"]
    step: dict[str, Any] = estimator["steps"][number]["estimator"]
    return step


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: first_step(a, 3).update(n_features=4), r"coef.* must be \(1, 4\)"),
        (lambda a: first_step(a, 3)["dtypes"].pop("coef"), r"must name \['coef'"),
        (lambda a: first_step(a, 3)["dtypes"].update(a="float32"), "no others than"),
        (lambda a: first_step(a, 3)["dtypes"].update(coef="O"), "float32"),
        (lambda a: first_step(a, 3)["parameters"].update(c=1), "unknown parameters"),
        (lambda a: first_step(a, 3)["parameters"].update(C=-1), "The 'C' parameter"),
        (lambda a: first_step(a, 3).update(kind="SVC"), "does not match any"),
        (lambda a: first_step(a, 2).update(n_components=2**40), "must be"),
        (
            lambda a: first_step(a, 3)["classes"].update(values=["a", "b"]),
            "must have classes",
        ),
        (
            lambda a: a["estimator"]["members"][0]["calibrators"].clear(),
            "at least 1 item",
        ),
        (
            lambda a: a["estimator"]["members"][0]["calibrators"][0].update(
                kind="sigmoid"
            ),
            "unknown tensors|lacks tensors",
        ),
        (lambda a: a["estimator"].update(estimator={}), "extra inputs"),
    ],
)
def test_json_that_says_what_it_may_not_is_refused(
    change: Change, message: str, tmp_path: Path
) -> None:
    _, description = save_artifacts(fit_linear(), tmp_path / "probe")
    found = json.loads(description.read_text())
    change(found)
    rewrite(tmp_path / "probe", description=found)
    with pytest.raises(ValueError, match=message) as raised:
        load_artifacts(tmp_path / "probe")
    assert str(raised.value).startswith(str(tmp_path / "probe."))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("members.0.estimator.minmaxscaler.scale", 0, "'scale' must be above 0"),
        ("members.0.estimator.pca.explained_variance", -1, "must be 0 or more"),
        ("members.0.calibrators.0.y_thresholds", 2, r"to values in \[0, 1\]"),
        ("members.0.calibrators.0.X_thresholds", 0, "thresholds must increase"),
    ],
)
def test_numbers_that_cannot_be_are_refused(
    name: str, value: float, message: str, tmp_path: Path
) -> None:
    path, _ = save_artifacts(fit_linear(), tmp_path / "probe")
    tensors = safetensors.numpy.load_file(path)
    tensors[name][:] = value
    rewrite(tmp_path / "probe", tensors=tensors)
    with pytest.raises(ValueError, match=message):
        load_artifacts(tmp_path / "probe")


def test_json_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    _, description = save_artifacts(fit_linear(), tmp_path / "probe")
    found = json.loads(description.read_text())
    for _ in range(150):
        step = {"name": "a", "estimator": found["estimator"]}
        found["estimator"] = {"kind": "Pipeline", "steps": [step]}
    rewrite(tmp_path / "probe", description=found)
    with pytest.raises(ValueError, match=r"probe\.json cannot be loaded"):
        load_artifacts(tmp_path / "probe")
