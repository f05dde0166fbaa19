"""A report checks what it can before the first fit, and keeps what is fitted."""

import importlib.metadata
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pytest
import sklearn
from _readable import GROUPS, X, Y
from numpy.testing import assert_allclose
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.metrics import accuracy_score, log_loss, make_scorer, roc_auc_score
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    LeaveOneGroupOut,
    cross_val_score,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.utils.metaestimators import available_if

from plug_sklearn import cross_validation_report
from plug_sklearn.evaluation import _report_files

FEATURES = X[:, 1, 0].astype(np.float64)
PROBE = LogisticRegression()
NAMES = np.array(["ant", "bee", "cat"])
#: All rows of class "cat" are in one group, so that one fold never trains on it.
RARE = np.where(GROUPS == 3, "cat", NAMES[Y])
FOLDS = list(GroupKFold(4).split(FEATURES, RARE, GROUPS))
WITHOUT_CAT = [n for n, (train, _) in enumerate(FOLDS) if "cat" not in RARE[train]]

Labels = np.ndarray


class Unfit(LogisticRegression):
    """Must not be fitted."""

    def fit(self, X: object, y: object) -> "Unfit":
        raise AssertionError


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


MISSING = np.where(np.arange(len(Y)) == 7, None, NAMES[Y])


@pytest.mark.parametrize(
    ("y", "groups", "scoring", "message"),
    [
        (
            MISSING,
            None,
            None,
            r"'y' parameter .* each row. Got 1 missing, at rows \[7\]",
        ),
        (pd.Series(MISSING), None, None, "'y' parameter"),
        (pd.Series(MISSING, dtype="string"), None, None, "'y' parameter"),
        (pd.Series(MISSING, dtype="category"), None, None, "'y' parameter"),
        (np.where(np.arange(120) == 7, np.nan, Y), None, None, "'y' parameter"),
        (pd.Series(np.where(np.arange(120) == 7, None, Y)), None, None, "Got 1 miss"),
        (Y + 0.5 * (np.arange(120) % 3), None, None, "Got continuous values"),
        (np.array([1, "one"] * 60, dtype=object), None, None, "of one type. Got"),
        (np.zeros(120), None, None, "two classes or more"),
        (Y[:-1], None, None, "inconsistent numbers of samples"),
        (Y, GROUPS[:-1], None, "inconsistent numbers of samples"),
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


class PredictsElsewhere(LogisticRegression):
    """Fits anywhere, and cannot predict the first row."""

    def predict_proba(self, X: Any) -> Any:  # noqa: ANN401
        if X[0, 0] == FEATURES[0, 0]:
            raise MemoryError("too long a text")
        return super().predict_proba(X)


def test_fold_that_cannot_be_predicted_has_no_probabilities(tmp_path: Path) -> None:
    with pytest.warns(UserWarning) as warned:
        report = cross_validation_report(
            PredictsElsewhere(), FEATURES, NAMES[Y], cv=3, out_dir=tmp_path
        )
    assert any("too long a text" in str(w.message) for w in warned)
    table = report.predictions
    is_first = table["fold"] == 0
    assert (
        table.loc[is_first, ["proba_ant", "proba_bee", "predicted"]]
        .isna()
        .all(axis=None)
    )
    others = table[~is_first]
    assert set(others["predicted"]) == {"ant", "bee"}
    p = others[["proba_ant", "proba_bee"]].to_numpy()
    expected = -log_loss(others["label"], p)
    assert_allclose(report.overall.loc["neg_log_loss", "pooled"], expected)
    assert np.isfinite(list(report.calibration.values())).all()
    assert json.loads((tmp_path / "summary.json").read_text())["n_folds"] == 3


class Unnormalised(LogisticRegression):
    """Gives what does not add up to one."""

    def predict_proba(self, X: Any) -> Any:  # noqa: ANN401
        return 0.5 * super().predict_proba(X)


def test_calibration_of_what_is_no_probability_is_nan() -> None:
    with pytest.warns(UserWarning, match="must have rows that add up to 1"):
        report = cross_validation_report(
            Unnormalised(), FEATURES, Y, cv=2, scoring="accuracy"
        )
    assert np.isnan(list(report.calibration.values())).all()
    assert report.scores["accuracy"].notna().all()


def test_copy_that_is_not_installed_has_no_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.metadata.version

    def find_installed(package: str) -> str:
        if package == "plug_sklearn":
            raise importlib.metadata.PackageNotFoundError(package)
        return find(package)

    monkeypatch.setattr("plug_sklearn._provenance.version", find_installed)
    cross_validation_report(PROBE, FEATURES, Y, cv=2, out_dir=tmp_path)
    versions = json.loads((tmp_path / "summary.json").read_text())["versions"]
    assert versions["plug_sklearn"] is None
    assert versions["numpy"] == np.__version__


@pytest.mark.parametrize("missing", ["learning_curve.png", "predictions.csv"])
def test_file_that_cannot_be_written_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no room")

    if missing == "predictions.csv":
        monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    else:
        monkeypatch.setattr(_report_files, "_draw_sizes", fail)
    with pytest.warns(UserWarning, match=rf"cannot write {missing}: .*no room"):
        report = cross_validation_report(PROBE, FEATURES, Y, cv=2, out_dir=tmp_path)
    assert len(report.scores) == 2
    names = {"learning_curve.png", "predictions.csv", "summary.json"} - {missing}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_folder_that_cannot_be_written_is_told_before_the_first_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(_report_files.tempfile, "TemporaryFile", refuse)
    with pytest.raises(PermissionError, match="read-only"):
        cross_validation_report(Unfit(), FEATURES, Y, out_dir=tmp_path)


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
