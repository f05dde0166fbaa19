import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.svm import LinearSVC

from plug_sklearn.evaluation._probabilities import (
    Predictions,
    read_predictions,
    require_probabilities,
)

P = np.array([0.1, 0.8])


def read(y: object, p: object, **given: object) -> Predictions:
    return read_predictions(
        y, p, **{"labels": None, "pos_label": None, "owner": "metric", **given}
    )


def test_one_column_is_of_the_second_label() -> None:
    found = read(["no", "yes"], P)
    assert_allclose(found.probabilities, [[0.9, 0.1], [0.2, 0.8]])
    assert found.labels.tolist() == ["no", "yes"]
    assert found.codes.tolist() == [0, 1]


def test_the_positive_label_comes_last() -> None:
    for given in (P, np.column_stack([P, 1 - P])):
        found = read(["no", "yes"], given, pos_label="no")
        assert_allclose(found.probabilities, [[0.9, 0.1], [0.2, 0.8]])
        assert found.labels.tolist() == ["yes", "no"]
        assert found.codes.tolist() == [1, 0]


@pytest.mark.parametrize(("only", "pair"), [(1, [0, 1]), (-1, [-1, 1]), (True, [0, 1])])
def test_the_absent_one_of_two_usual_labels_is_known(only: object, pair: list) -> None:
    assert read([only, only], P).labels.tolist() == pair


def test_the_absent_one_of_other_labels_must_be_named() -> None:
    with pytest.raises(
        ValueError, match=r"'labels' parameter of metric must name the 2"
    ):
        read(["yes", "yes"], P)
    found = read(["yes", "yes"], P, labels=["no", "yes"])
    assert found.codes.tolist() == [1, 1]


def test_precision_is_kept() -> None:
    assert read([0, 1], P.astype(np.float32)).probabilities.dtype == np.float32


def test_labels_that_are_named_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="'labels' parameter of metric"):
        read([0, 1], P, labels=[1, 1])


@pytest.mark.parametrize("wrong", [[0.5, 1.0], [0.0, np.nan]])
def test_labels_that_are_fractions_or_missing_are_refused(wrong: list) -> None:
    with pytest.raises(ValueError, match=r"'y_true' parameter .* Got \S+ among"):
        read(wrong, P)


@pytest.mark.parametrize("wrong", [0.5, [[0.5], [0.5]], [[[0.5, 0.5]]]])
def test_probabilities_of_another_shape_are_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"'y_proba' parameter of metric .* Got shape"):
        read([0, 1], wrong)


def test_a_classifier_that_can_learn_probabilities_is_told_how() -> None:
    require_probabilities(LogisticRegression(), "report")
    with pytest.raises(ValueError, match=r"'estimator' .* LinearSVC instead, which sk"):
        require_probabilities(LinearSVC(), "report")
    for wrong in (Ridge(), "classifier"):
        with pytest.raises(ValueError, match=r"'estimator' .* Got \w+ instead\."):
            require_probabilities(wrong, "report")
