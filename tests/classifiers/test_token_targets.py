"""Labels of tokens, as users may write them."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from plug_sklearn import PlugTokenClassifier

QUICK: dict[str, Any] = {
    "max_epochs": 2,
    "n_members": 2,
    "random_state": 0,
    "device": "cpu",
}
X = np.random.default_rng(0).normal(size=(24, 5, 4)).astype(np.float32)
#: Labels of the five tokens of each text; -1 for none.
LABELS = np.where(X[..., 1] > 1, -1, X[..., 0] > 0)


def predict(y: object, labels: object = None) -> list[np.ndarray]:
    """Fit, and predict the tokens of three texts."""
    probe = PlugTokenClassifier(**QUICK).fit(X, y)
    assert probe.classes_.tolist() == ([0, 1] if labels is None else labels)
    return list(probe.predict_token_proba(X[:3]))


@pytest.mark.parametrize(
    "y",
    [
        LABELS,
        LABELS.astype(float),
        pd.Series(LABELS.tolist()),
        [own.astype(object) for own in LABELS],
        [tuple(None if label < 0 else label for label in own) for own in LABELS],
    ],
    ids=["array", "floats", "series", "objects", "None"],
)
def test_labels_that_are_written_otherwise_train_the_same(y: object) -> None:
    assert_array_equal(predict(y), predict(LABELS.tolist()))


def test_none_and_the_empty_string_are_no_labels_among_strings() -> None:
    names = np.array(["no", "yes", ""])[LABELS]
    empty = predict(names.tolist(), ["no", "yes"])
    as_none = [[name or None for name in own] for own in names.tolist()]
    assert_array_equal(predict(as_none, ["no", "yes"]), empty)
    assert_array_equal(predict(LABELS), empty)


def test_labels_that_only_texts_of_weight_zero_have_are_no_classes() -> None:
    y = LABELS.copy()
    y[0, 0] = 2
    weight = np.ones(len(X))
    weight[0] = 0
    probe = PlugTokenClassifier(**QUICK).fit(X, y, sample_weight=weight)
    assert probe.classes_.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([[0, "a", 1, 1, 1], *LABELS[1:].tolist()], "numbers or strings"),
        ([[0, np.nan, 1, 1, 1], *LABELS[1:].tolist()], "whole numbers"),
        ([[0, np.inf, 1, 1, 1], *LABELS[1:].tolist()], "whole numbers"),
        ([[0, -1e30, 1, 1, 1], *LABELS[1:].tolist()], "whole numbers"),
        ([["a", np.nan, "b", "b", "b"]] * len(X), "Got both at position 0"),
        ([[], *LABELS[1:].tolist()], "position 0, whose text has 5 tokens"),
        (LABELS[:, :4], "position 0, whose text has 5 tokens"),
        ([None, *LABELS[1:].tolist()], "Got both"),
    ],
)
def test_wrong_labels_are_refused_with_a_reason(y: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PlugTokenClassifier(**QUICK).fit(X, y)


def test_generator_instead_of_texts_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"X given to PlugTokenClassifier.*generator"):
        PlugTokenClassifier(**QUICK).fit((item for item in X), LABELS)


def test_score_refuses_labels_of_another_type() -> None:
    probe = PlugTokenClassifier(**QUICK).fit(X, LABELS)
    with pytest.raises(ValueError, match=r"type of those in fit, such as 0\. Got '"):
        probe.score(X, np.array(["no", "yes", ""])[LABELS].tolist())
