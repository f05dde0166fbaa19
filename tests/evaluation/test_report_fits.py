"""Which estimators a report takes, and what a refusal costs."""

import csv
import json
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from _readable import FRAGILE_MLP, GROUPS, X, Y
from matplotlib.figure import Figure
from numpy.testing import assert_allclose
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    LeaveOneGroupOut,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.utils.metaestimators import available_if

from plug_sklearn import (
    cross_validation_report,
)

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
        type(self).n_fits += 1
        self.inner_ = self.make_inner().fit(X, y)
        self.classes_ = self.inner_.classes_
        return self

    @available_if(lambda self: self.learns and hasattr(self, "inner_"))
    def predict_proba(self, X: Any) -> Any:  # noqa: ANN401
        return self.inner_.predict_proba(X)

    def predict(self, X: Any) -> Any:  # noqa: ANN401
        return self.inner_.predict(X)

    def make_inner(self) -> ClassifierMixin:
        return LogisticRegression()


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
    with pytest.raises(
        ValueError, match=r"predict probabilities\. Got \w+ instead, which .*Calibrated"
    ):
        cross_validation_report(estimator, FEATURES, Y)


@pytest.mark.parametrize("thing", ["text", None, np.ones(3)])
def test_what_is_no_classifier_is_refused(thing: object) -> None:
    with pytest.raises(TypeError, match=r"'estimator' parameter.* an estimator"):
        cross_validation_report(thing, FEATURES, Y)


FOLDS = list(KFold(3).split(FEATURES))
COLUMNS = ["proba_0", "proba_1"]


def find_missing_blocks(X: np.ndarray) -> set[int]:
    """The folds of FOLDS whose test rows are not among these rows."""
    return {n for n in range(3) if FEATURES[FOLDS[n][1][0], 0] not in X[:, 0]}


class Fragile(LogisticRegression):
    """Cannot be fitted on some of FOLDS."""

    def __init__(self, failing: tuple[int, ...] = (0,)) -> None:
        super().__init__()
        self.failing = failing

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:  # noqa: ANN401
        for fold in find_missing_blocks(X).intersection(self.failing):
            raise MemoryError(f"no room for fold {fold}")
        return super().fit(X, y, sample_weight)


def pipe_fragile(failing: tuple[int, ...]) -> BaseEstimator:
    return make_pipeline(FunctionTransformer(), Fragile(failing))


class LateFragile(Late):
    """The same, which tells only after ``fit`` whether it predicts probabilities."""

    n_fits = 0

    def __init__(self, failing: tuple[int, ...] = (0,), learns: bool = True) -> None:
        super().__init__(learns)
        self.failing = failing

    def make_inner(self) -> ClassifierMixin:
        return Fragile(self.failing)


def score_likelihood(estimator: Any, X: Any, y: Any) -> float:  # noqa: ANN401
    return -log_loss(y, estimator.predict_proba(X))


def score_two(estimator: Any, X: Any, y: Any) -> dict[str, float]:  # noqa: ANN401
    p = estimator.predict_proba(X)
    return {"loss": log_loss(y, p), "auc": roc_auc_score(y, p[:, 1])}


@pytest.mark.parametrize("failing", [0, 1, 2])
@pytest.mark.parametrize("kind", [Fragile, LateFragile, pipe_fragile])
@pytest.mark.parametrize("n_jobs", [None, 2])
def test_failed_fold_has_no_scores_and_no_probabilities(
    failing: int,
    kind: Any,  # noqa: ANN401
    n_jobs: int | None,
) -> None:
    with pytest.warns(UserWarning) as warned:
        report = cross_validation_report(
            kind((failing,)), FEATURES, Y, cv=FOLDS, n_jobs=n_jobs
        )
    (said,) = {str(w.message) for w in warned}
    assert f"cannot be fitted on fold {failing}," in said
    assert f"MemoryError: no room for fold {failing}" in said
    assert report.scores["fold"].tolist() == [0, 1, 2]
    assert [one is None for one in report.estimators] == [
        n == failing for n in range(3)
    ]
    losses = []
    for fold, (train, test) in enumerate(FOLDS):
        scores = report.scores.loc[fold]
        rows = report.predictions[report.predictions["fold"] == fold]
        assert (scores["n_train"], scores["n_test"]) == (len(train), len(test))
        assert rows["label"].tolist() == Y[test].tolist()
        assert scores["fit_time"] > 0
        if fold == failing:
            assert scores[["accuracy", "roc_auc", "neg_log_loss"]].isna().all()
            assert rows[["predicted", *COLUMNS]].isna().all(axis=None)
            continue
        p = LogisticRegression().fit(FEATURES[train], Y[train])
        p = p.predict_proba(FEATURES[test])
        assert_allclose(rows[COLUMNS], p)
        losses.append(-log_loss(Y[test], p))
        assert_allclose(scores["neg_log_loss"], losses[-1])
    assert_allclose(report.overall.loc["neg_log_loss", "mean"], np.mean(losses))
    others = report.predictions.dropna()
    expected = -log_loss(others["label"], others[COLUMNS])
    assert_allclose(report.overall.loc["neg_log_loss", "pooled"], expected)
    assert np.isfinite(list(report.calibration.values())).all()


@pytest.mark.parametrize(
    ("scoring", "names"),
    [
        (score_likelihood, ["score"]),
        (score_two, ["loss", "auc"]),
        ("roc_auc", ["roc_auc"]),
        ({"a": score_likelihood, "b": "accuracy"}, ["a", "b"]),
    ],
)
@pytest.mark.parametrize("failing", [0, 2])
@pytest.mark.parametrize("kind", [Fragile, LateFragile])
def test_any_form_of_scoring_bears_a_failed_fold(
    scoring: Any,  # noqa: ANN401
    names: list[str],
    failing: int,
    kind: type,
) -> None:
    with pytest.warns(UserWarning, match="cannot be fitted on fold") as warned:
        report = cross_validation_report(
            kind((failing,)), FEATURES, Y, cv=FOLDS, scoring=scoring
        )
    assert len(warned) == 1
    assert report.overall.index.tolist() == names
    columns = list(report.scores.columns)
    assert columns == ["fold", *names, "fit_time", "score_time", "n_train", "n_test"]
    whole = cross_validation_report(
        LogisticRegression(), FEATURES, Y, cv=FOLDS, scoring=scoring
    )
    for name in names:
        assert report.scores[name].isna().tolist() == [n == failing for n in range(3)]
        there = report.scores[name].drop(failing)
        assert_allclose(there, whole.scores[name].drop(failing))
        assert np.isfinite(report.overall.loc[name, "pooled"])


def test_folds_that_fail_alike_are_named_together_and_others_apart() -> None:
    with pytest.warns(UserWarning) as warned:
        report = cross_validation_report(
            Fragile((0, 1)), FEATURES, Y, cv=[FOLDS[0], FOLDS[2], FOLDS[0], FOLDS[1]]
        )
    said = [str(w.message) for w in warned]
    assert len(said) == 2
    assert "on folds [0, 2]," in said[0]
    assert "no room for fold 0" in said[0]
    assert "on fold 3," in said[1]
    assert [one is None for one in report.estimators] == [True, False, True, True]


@pytest.mark.parametrize("kind", [Fragile, LateFragile])
@pytest.mark.parametrize("n_jobs", [None, 2])
def test_estimator_that_fits_on_no_fold_is_refused_with_its_error(
    kind: type, n_jobs: int | None, tmp_path: Path
) -> None:
    message = r"'estimator' parameter of cross_validation_report .* All 3 .* first .*"
    with pytest.raises(ValueError, match=f"{message}no room for fold 0") as caught:
        cross_validation_report(
            kind((0, 1, 2)), FEATURES, Y, cv=FOLDS, n_jobs=n_jobs, out_dir=tmp_path
        )
    assert "in fit" in caught.value.__notes__[0]


def test_refusal_after_a_failed_fold_costs_no_more_fits_than_it_must() -> None:
    LateFragile.n_fits = 0
    with pytest.raises(ValueError, match=r"must predict probabilities\. Got Late"):
        cross_validation_report(
            LateFragile((0,), learns=False), FEATURES, Y, cv=FOLDS * 2
        )
    assert LateFragile.n_fits == 2


def read_title_and_lines(figure: Figure) -> tuple[str, list[np.ndarray]]:
    upper = figure.axes[0]
    return upper.get_title(), [line.get_ydata() for line in upper.lines]


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures as they are saved."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        figures.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def test_files_show_the_other_folds(tmp_path: Path, saved: list[Figure]) -> None:
    with pytest.warns(UserWarning, match="on fold 1,") as warned:
        report = cross_validation_report(
            Fragile((1,)), FEATURES, Y, cv=FOLDS, scoring="roc_auc", out_dir=tmp_path
        )
    assert len(warned) == 1
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["n_folds"] == 3
    by_fold = summary["scores"]["roc_auc"]["by_fold"]
    assert by_fold == [report.scores["roc_auc"][0], None, report.scores["roc_auc"][2]]
    with (tmp_path / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(Y)
    for row in rows:
        is_empty = [row[name] == "" for name in ("predicted", *COLUMNS)]
        assert is_empty == [row["fold"] == "1"] * 3
        assert row["predicted"] in ("", "0", "1")
    title, lines = read_title_and_lines(saved[0])
    assert title.startswith("2 folds")
    # Of fewer rows, some fits fail too.
    assert all(np.isfinite(line[-1]) for line in lines)


def test_curve_leaves_out_folds_whose_score_is_undefined(
    tmp_path: Path, saved: list[Figure]
) -> None:
    groups = np.arange(len(Y)) % 4
    y = np.where(groups == 1, 0, Y)
    y[groups == 3] = np.arange(30) % 2
    y[groups == 0] = np.arange(30) // 5 % 2
    with pytest.warns(UserWarning, match=r"'roc_auc' is undefined in folds \[1, 2\]"):
        cross_validation_report(
            LogisticRegression(),
            FEATURES,
            y,
            cv=LeaveOneGroupOut(),
            groups=groups,
            scoring="roc_auc",
            out_dir=tmp_path,
        )
    title, lines = read_title_and_lines(saved[0])
    assert title.startswith("2 folds")
    assert all(np.isfinite(line).all() for line in lines)


def test_history_keeps_the_numbers_of_folds(
    tmp_path: Path, saved: list[Figure]
) -> None:
    cv = GroupKFold(3)
    (failed,) = (
        fold
        for fold, (_, test) in enumerate(cv.split(FEATURES, Y, GROUPS))
        if 7 in test
    )
    with pytest.warns(UserWarning, match=f"on fold {failed}, .*out of memory"):
        report = cross_validation_report(
            FRAGILE_MLP,
            FEATURES,
            Y,
            cv=cv,
            groups=GROUPS,
            scoring="accuracy",
            out_dir=tmp_path,
        )
    others = [fold for fold in range(3) if fold != failed]
    assert report.history["fold"].unique().tolist() == others
    for fold in others:
        rows = report.history[report.history["fold"] == fold]
        expected = [row["train_loss"] for row in report.estimators[fold].history_]
        assert_allclose(rows["train_loss"], expected)
    assert report.predictions["group"].notna().all()
    title, lines = read_title_and_lines(saved[0])
    assert "one line for each fold" in title
    assert len(lines) == 5  # training and validation of two folds, and the kept epochs
