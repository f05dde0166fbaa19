import numpy as np
import pandas as pd
import pytest
from _drawn import find_overlapping_texts
from _readable import FRAGILE_MLP, X, Y
from matplotlib.figure import Figure
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.pipeline import make_pipeline

from plug_sklearn import (
    LayerAggregator,
    PlugMLPClassifier,
    TrainingCurveDisplay,
    training_history,
)

FEATURES = X[:, 1, 0]
PROBE = PlugMLPClassifier(max_epochs=6, random_state=0, device="cpu")


@pytest.fixture(scope="module")
def fitted() -> PlugMLPClassifier:
    return PlugMLPClassifier(max_epochs=6, random_state=0, device="cpu").fit(X, Y)


@pytest.fixture(scope="module")
def results() -> dict[str, object]:
    return cross_validate(PROBE, X, Y, cv=3, return_estimator=True)


def test_each_fold_is_a_line_of_each_curve(
    results: dict[str, object], figure: Figure
) -> None:
    display = TrainingCurveDisplay.from_estimator(results, ax=figure.subplots(2))
    history = training_history(results)
    for column, lines in display.lines_.items():
        assert len(lines) == 3
        for fold, line in enumerate(lines):
            rows = history[history["fold"] == fold]
            assert_allclose(line.get_xdata(), rows["epoch"])
            assert_allclose(line.get_ydata(), rows[column])


def test_the_epoch_that_was_kept_is_marked(
    fitted: PlugMLPClassifier, figure: Figure
) -> None:
    display = TrainingCurveDisplay.from_estimator(fitted, ax=figure.subplots(2))
    best = fitted.history_[fitted.best_epoch_ - 1]
    for axes, column in zip(display.ax_, ("valid_loss", "valid_score"), strict=True):
        mark = axes.lines[-1]
        assert_allclose(mark.get_xdata(), [fitted.best_epoch_])
        assert_allclose(mark.get_ydata(), [best[column]])


def test_the_score_goes_by_the_monitors_name(
    fitted: PlugMLPClassifier, figure: Figure
) -> None:
    display = TrainingCurveDisplay.from_estimator(fitted, ax=figure.subplots(2))
    assert display.ax_[1].get_ylabel() == "ROC AUC"


def test_estimators_can_come_one_by_one(
    fitted: PlugMLPClassifier, figure: Figure
) -> None:
    one_by_one = (probe for probe in (fitted, fitted))
    display = TrainingCurveDisplay.from_estimator(one_by_one, ax=figure.subplots(2))
    assert len(display.lines_["train_loss"]) == 2


def test_one_axes_is_divided(fitted: PlugMLPClassifier, figure: Figure) -> None:
    axes = figure.subplots()
    display = TrainingCurveDisplay.from_estimator(fitted, ax=axes)
    assert len(display.ax_) == 2
    assert display.figure_ is figure
    assert not axes.axison


def test_without_validation_rows_training_alone_is_drawn(figure: Figure) -> None:
    probe = PlugMLPClassifier(
        max_epochs=3, early_stopping=False, random_state=0, device="cpu"
    ).fit(X, Y)
    display = TrainingCurveDisplay.from_estimator(probe, ax=figure.subplots())
    assert list(display.lines_) == ["train_loss"]
    assert len(display.ax_) == 1


def test_a_monitored_loss_needs_no_second_axes(figure: Figure) -> None:
    probe = PlugMLPClassifier(
        max_epochs=3, monitor="loss", random_state=0, device="cpu"
    ).fit(X, Y)
    display = TrainingCurveDisplay.from_estimator(probe, ax=figure.subplots())
    assert list(display.lines_) == ["train_loss", "valid_loss"]


def test_a_single_epoch_is_seen_at_its_number() -> None:
    probe = PlugMLPClassifier(max_epochs=1, random_state=0, device="cpu").fit(X, Y)
    display = TrainingCurveDisplay.from_estimator(probe)
    for lines in display.lines_.values():
        assert all(line.get_marker() != "None" for line in lines)
    for axes in display.ax_:
        assert [tick for tick in axes.get_xticks() if tick != int(tick)] == []


def test_no_texts_overlap(results: dict[str, object]) -> None:
    display = TrainingCurveDisplay.from_estimator(results)
    assert find_overlapping_texts(display.figure_) == []
    assert display.figure_.get_figwidth() * 100 == 600


def test_a_wrong_number_of_axes_is_refused(
    fitted: PlugMLPClassifier, figure: Figure
) -> None:
    with pytest.raises(
        ValueError, match=r"'ax' parameter of TrainingCurveDisplay\.plot"
    ):
        TrainingCurveDisplay.from_estimator(fitted, ax=figure.subplots(3))


def test_what_is_no_history_is_refused(fitted: PlugMLPClassifier) -> None:
    for wrong in (fitted, training_history(fitted).drop(columns="epoch")):
        with pytest.raises(ValueError, match=r"'history' parameter of TrainingCurveDi"):
            TrainingCurveDisplay(wrong)


@pytest.mark.usefixtures("no_matplotlib")
def test_without_matplotlib_the_extra_is_named() -> None:
    with pytest.raises(ImportError, match=r"its extra \[plots\]"):
        TrainingCurveDisplay.from_estimator(np.nan)


def test_the_history_is_that_of_the_estimator(fitted: PlugMLPClassifier) -> None:
    table = training_history(fitted)
    for column in ("epoch", "train_loss", "valid_loss", "valid_score"):
        assert_allclose(table[column], [row[column] for row in fitted.history_])
    assert table.loc[table["kept"], "epoch"].tolist() == [fitted.best_epoch_]
    assert (table["fold"] == 0).all()


def test_estimators_of_cross_validation_are_numbered_by_fold(
    results: dict[str, object],
) -> None:
    table = training_history(results)
    assert table["fold"].unique().tolist() == [0, 1, 2]
    assert table.groupby("fold")["kept"].sum().tolist() == [1, 1, 1]
    pd.testing.assert_frame_equal(table, training_history(results["estimator"]))


def test_a_probe_is_found_in_pipelines_and_searches(fitted: PlugMLPClassifier) -> None:
    pipeline = make_pipeline(LayerAggregator(), clone(PROBE)).fit(X, Y)
    search = GridSearchCV(pipeline, {"plugmlpclassifier__dropout": [0.3]}, cv=2).fit(
        X, Y
    )
    expected = training_history(fitted)
    pd.testing.assert_frame_equal(training_history(pipeline), expected)
    pd.testing.assert_frame_equal(training_history(search), expected)


@pytest.mark.parametrize(
    ("wrong", "got"),
    [
        (PROBE, "PlugMLPClassifier without one"),
        ([LogisticRegression()], "LogisticRegression without one"),
        (PlugMLPClassifier, "ABCMeta without one"),
        ([], "none"),
        (None, "NoneType without one"),
    ],
)
def test_what_was_not_trained_by_epochs_is_refused(wrong: object, got: str) -> None:
    with pytest.raises(ValueError, match=f"'estimators' parameter of .* Got {got}"):
        training_history(wrong)


def test_results_without_estimators_are_refused() -> None:
    with pytest.raises(ValueError, match="return_estimator=True"):
        training_history({"test_score": [1.0]})


@pytest.mark.parametrize("failed", [0, 1])
def test_history_of_cross_validation_keeps_the_numbers_of_folds(failed: int) -> None:
    folds = KFold(3).split(FEATURES)
    row = list(folds)[failed][1][0]
    order = np.arange(len(Y))
    order[[7, row]] = row, 7
    with pytest.warns(FitFailedWarning, match="out of memory"):
        results = cross_validate(
            FRAGILE_MLP, FEATURES[order], Y[order], cv=KFold(3), return_estimator=True
        )
    others = [fold for fold in range(3) if fold != failed]
    assert training_history(results)["fold"].unique().tolist() == others
    display = TrainingCurveDisplay.from_estimator(results)
    assert len(display.lines_["train_loss"]) == 2
    one_by_one = [
        None if n == failed else one for n, one in enumerate(results["estimator"])
    ]
    assert training_history(one_by_one).equals(training_history(results))


def test_history_is_refused_where_no_fit_succeeded_or_another_kind_is_there(
    fitted: PlugMLPClassifier,
) -> None:
    failed = 2 * [FRAGILE_MLP]
    for wrong in ([None, None], failed, [fitted, LogisticRegression()]):
        with pytest.raises(ValueError, match="'estimators' parameter of training_hist"):
            training_history(wrong)
