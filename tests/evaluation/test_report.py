"""What a report refuses before the first fit."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from _readable import GROUPS, X, Y
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    log_loss,
    make_scorer,
    roc_auc_score,
)
from sklearn.model_selection import (
    GroupKFold,
    LeaveOneGroupOut,
    RepeatedKFold,
    ShuffleSplit,
    cross_val_predict,
    cross_validate,
)
from sklearn.pipeline import make_pipeline

from plug_sklearn import (
    LayerAggregator,
    PlugMLPClassifier,
    cross_validation_report,
    expected_calibration_error,
    training_history,
)

FEATURES = X[:, 1, 0].astype(np.float64)
PROBE = LogisticRegression()
NAMES = np.array(["ant", "bee", "cat"])
THREE = NAMES[(Y + np.arange(len(Y)) // 40) % 3]


def test_probabilities_are_cross_val_predicts() -> None:
    report = cross_validation_report(PROBE, FEATURES, Y, cv=4)
    expected = cross_val_predict(PROBE, FEATURES, Y, cv=4, method="predict_proba")
    columns = ["proba_0", "proba_1"]
    assert_allclose(report.predictions[columns], expected)
    assert (report.predictions["predicted"] == expected.argmax(axis=1)).all()
    assert (report.predictions["label"] == Y).all()


def test_scores_are_cross_validates() -> None:
    scoring = ["roc_auc", "f1"]
    report = cross_validation_report(PROBE, FEATURES, Y, cv=4, scoring=scoring)
    expected = cross_validate(PROBE, FEATURES, Y, cv=4, scoring=scoring)
    for name in scoring:
        folds = expected[f"test_{name}"]
        assert_allclose(report.scores[name], folds)
        assert_allclose(report.overall.loc[name, "mean"], folds.mean())
        assert_allclose(report.overall.loc[name, "std"], folds.std(ddof=1))
    assert (report.scores["n_train"] + report.scores["n_test"] == len(Y)).all()


def test_pooled_scores_are_of_all_out_of_fold_probabilities_together() -> None:
    report = cross_validation_report(PROBE, FEATURES, Y, cv=4)
    p = cross_val_predict(PROBE, FEATURES, Y, cv=4, method="predict_proba")[:, 1]
    expected = {
        "accuracy": accuracy_score(Y, p > 0.5),
        "roc_auc": roc_auc_score(Y, p),
        "neg_log_loss": -log_loss(Y, p),
        "neg_brier_score": -brier_score_loss(Y, p),
    }
    assert report.overall["pooled"].to_dict() == pytest.approx(expected)
    ece = report.calibration["expected_calibration_error"]
    assert ece == expected_calibration_error(Y, p)
    assert report.calibration["brier_score"] == pytest.approx(brier_score_loss(Y, p))


def test_more_classes_are_scored_each_against_the_rest() -> None:
    report = cross_validation_report(PROBE, FEATURES, THREE, cv=4)
    columns = ["proba_ant", "proba_bee", "proba_cat"]
    p = report.predictions[columns].to_numpy()
    assert_allclose(p.sum(axis=1), 1)
    pooled = report.overall["pooled"]
    assert_allclose(pooled["roc_auc_ovr"], roc_auc_score(THREE, p, multi_class="ovr"))
    assert_allclose(pooled["neg_brier_score"], -brier_score_loss(THREE, p))
    assert set(report.predictions["predicted"]) <= set(NAMES)


def score_constant(estimator: object, X: object, y: object) -> float:
    return 0.25


def test_any_form_of_scoring_is_taken() -> None:
    for scoring, name in (
        ("accuracy", "accuracy"),
        ({"hits": "accuracy"}, "hits"),
        (score_constant, "score"),
    ):
        report = cross_validation_report(PROBE, FEATURES, Y, cv=2, scoring=scoring)
        assert report.overall.index.tolist() == [name]
        assert np.isfinite(report.overall.loc[name, "pooled"])


def test_rows_keep_the_index_and_order_of_frames() -> None:
    index = pd.Index([f"row {n}" for n in range(len(Y))], name="id")
    frame = pd.DataFrame(FEATURES, index=index).add_prefix("unit_")
    report = cross_validation_report(PROBE, frame, Y, cv=3)
    pd.testing.assert_index_equal(report.predictions.index, index)
    plain = cross_validation_report(PROBE, FEATURES, Y, cv=3)
    assert plain.predictions.index.tolist() == list(range(len(Y)))
    assert_allclose(report.predictions["proba_1"], plain.predictions["proba_1"])


def test_one_group_is_left_out_at_a_time() -> None:
    report = cross_validation_report(
        PROBE, FEATURES, Y, cv=LeaveOneGroupOut(), groups=GROUPS
    )
    assert len(report.scores) == GROUPS.max() + 1
    assert (report.predictions["group"] == GROUPS).all()
    by_fold = report.predictions.groupby("fold")["group"]
    assert (by_fold.nunique() == 1).all()


def test_groups_reach_a_probe_at_the_end_of_a_pipeline() -> None:
    probe = PlugMLPClassifier(max_epochs=5, random_state=0, device="cpu")
    pipeline = make_pipeline(LayerAggregator(layers=[1], parts=[0]), probe)
    alone, piped = (
        cross_validation_report(
            estimator, features, Y, cv=GroupKFold(3), groups=GROUPS, scoring="roc_auc"
        )
        for estimator, features in ((probe, X[:, 1, 0]), (pipeline, X))
    )
    pd.testing.assert_frame_equal(piped.history, alone.history)


def test_groups_of_one_class_leave_undefined_scores_out_of_means() -> None:
    groups = np.where(GROUPS % 2, GROUPS, 100 + 2 * GROUPS + Y)
    with pytest.warns(UserWarning, match=r"'roc_auc' is undefined in folds \["):
        report = cross_validation_report(
            PROBE, FEATURES, Y, cv=LeaveOneGroupOut(), groups=groups, scoring="roc_auc"
        )
    defined = report.scores["roc_auc"].notna()
    assert defined.sum() == 10
    assert_allclose(
        report.overall.loc["roc_auc", "mean"], report.scores["roc_auc"][defined].mean()
    )
    expected = roc_auc_score(Y, report.predictions["proba_1"])
    assert_allclose(report.overall.loc["roc_auc", "pooled"], expected)


@pytest.mark.parametrize("y", [Y, THREE])
def test_all_default_scores_bear_folds_of_one_class(y: np.ndarray) -> None:
    groups = np.unique(y, return_inverse=True)[1] + 3 * (np.arange(len(y)) % 4)
    with pytest.warns(UserWarning) as warnings:
        report = cross_validation_report(
            PROBE, FEATURES, y, cv=LeaveOneGroupOut(), groups=groups
        )
    assert all("is undefined in folds" in str(w.message) for w in warnings)
    assert np.isfinite(report.overall["pooled"]).all()


def test_a_class_that_a_fold_never_trains_on_has_probability_zero() -> None:
    y = np.where(GROUPS == 0, 2, Y)
    report = cross_validation_report(
        PROBE, FEATURES, y, cv=GroupKFold(20), groups=GROUPS, scoring="accuracy"
    )
    left_out = report.predictions[report.predictions["label"] == 2]
    assert (left_out["proba_2"] == 0).all()
    others = ["proba_0", "proba_1", "proba_2"]
    assert_allclose(report.predictions[others].sum(axis=1), 1)


def test_repeated_folds_give_a_row_each_time() -> None:
    cv = RepeatedKFold(n_splits=3, n_repeats=2, random_state=0)
    report = cross_validation_report(PROBE, FEATURES, Y, cv=cv)
    assert report.predictions.index.tolist() == sorted(2 * [*range(len(Y))])
    assert report.n_samples == len(Y)


def test_rows_that_no_fold_tests_have_none() -> None:
    cv = ShuffleSplit(1, test_size=10, random_state=0)
    report = cross_validation_report(PROBE, FEATURES, Y, cv=cv)
    assert len(report.predictions) == 10


def test_a_network_reports_its_training_too() -> None:
    probe = PlugMLPClassifier(max_epochs=2, random_state=0, device="cpu")
    pipeline = make_pipeline(LayerAggregator(layers=[1]), probe)
    report = cross_validation_report(pipeline, X, Y, cv=2)
    pd.testing.assert_frame_equal(report.history, training_history(report.estimators))
    assert report.wall_time > report.scores["fit_time"].sum()
    plain = cross_validation_report(PROBE, FEATURES, Y, cv=2)
    assert plain.history is None


def test_workers_change_nothing() -> None:
    one, two = (
        cross_validation_report(PROBE, FEATURES, Y, cv=3, n_jobs=n) for n in (None, 2)
    )
    pd.testing.assert_frame_equal(one.predictions, two.predictions)
    pd.testing.assert_frame_equal(one.overall, two.overall)


def test_a_regressor_is_refused() -> None:
    with pytest.raises(ValueError, match="of cross_validation_report must predict pro"):
        cross_validation_report(Ridge(), FEATURES, Y)


class Unfit(LogisticRegression):
    """Must not be fitted."""

    def fit(self, X: object, y: object) -> "Unfit":
        raise AssertionError


MISSING = np.where(np.arange(len(Y)) == 7, None, NAMES[Y])


@pytest.mark.parametrize(
    ("y", "groups", "scoring", "message"),
    [
        (
            MISSING,
            None,
            None,
            r"'y' parameter .* each sample. Got 1 missing, at positions \[7\]",
        ),
        (pd.Series(MISSING), None, None, "'y' parameter"),
        (pd.Series(MISSING, dtype="string"), None, None, "'y' parameter"),
        (pd.Series(MISSING, dtype="category"), None, None, "'y' parameter"),
        (np.where(np.arange(120) == 7, np.nan, Y), None, None, "'y' parameter"),
        (pd.Series(np.where(np.arange(120) == 7, None, Y)), None, None, "Got 1 miss"),
        (Y + 0.5 * (np.arange(120) % 3), None, None, "Got continuous values"),
        (np.array([1, "one"] * 60, dtype=object), None, None, "of one type. Got"),
        (np.zeros(120), None, None, "two classes or more"),
        (pd.Series([[0, 1]] * 120), None, None, "one label for each sample"),
        (Y[:-1], None, None, "'y' parameter.* for each of the 120 samples"),
        (Y, GROUPS[:-1], None, "'groups' parameter.* Got 119 for 120 samples"),
        (Y, np.where(GROUPS == 1, np.nan, GROUPS), None, "'groups' parameter"),
        (Y, None, "acuracy", "'acuracy' is not a valid scoring value"),
        (Y, None, ["accuracy", "acuracy"], "acuracy"),
        (Y, None, {"a": "acuracy"}, "acuracy"),
        (Y, None, roc_auc_score, "make_scorer"),
        (Y, None, [make_scorer(accuracy_score)], "strings"),
        (Y, None, [], "(?i)empty"),
    ],
)
def test_bad_input_is_refused_before_the_first_fit(
    y: Any,  # noqa: ANN401
    groups: Any,  # noqa: ANN401
    scoring: Any,  # noqa: ANN401
    message: str,
    tmp_path: Path,
) -> None:
    with pytest.raises(ValueError, match=message):
        cross_validation_report(
            Unfit(),
            FEATURES,
            y,
            groups=groups,
            scoring=scoring,
            cv=[(np.arange(60), np.arange(60, 120))],
            out_dir=tmp_path / "run",
        )
    assert not (tmp_path / "run").exists()


def test_a_report_prints_its_scores_and_not_its_rows() -> None:
    printed = repr(cross_validation_report(PROBE, FEATURES, Y, cv=4))
    assert f"{len(Y)} samples, 2 classes and 4 folds" in printed
    assert "roc_auc" in printed
    assert "brier_score" in printed
    assert len(printed) < 600


@pytest.mark.parametrize(("parameter", "value"), [("out_dir", 3), ("params", "x")])
def test_folders_and_arguments_of_another_type_are_refused_by_name(
    parameter: str, value: object
) -> None:
    with pytest.raises(TypeError, match=f"The '{parameter}' parameter of cross_val"):
        cross_validation_report(PROBE, FEATURES, Y, **{parameter: value})  # type: ignore[arg-type]  # what is tested
