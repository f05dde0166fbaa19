import pandas as pd
import pytest
from _readable import X, Y
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline

from plug_sklearn import LayerAggregator, PlugMLPClassifier, training_history

PROBE = PlugMLPClassifier(max_epochs=6, random_state=0, device="cpu")


@pytest.fixture(scope="module")
def fitted() -> PlugMLPClassifier:
    return PlugMLPClassifier(max_epochs=6, random_state=0, device="cpu").fit(X, Y)


@pytest.fixture(scope="module")
def results() -> dict[str, object]:
    return cross_validate(PROBE, X, Y, cv=3, return_estimator=True)


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
