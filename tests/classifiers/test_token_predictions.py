from typing import Any

import numpy as np
import pytest
from _texts import make_texts
from numpy.testing import assert_allclose
from sklearn.model_selection import KFold, cross_val_score

from plug_sklearn import PlugTokenClassifier

QUICK: dict[str, Any] = {"n_members": 2, "random_state": 0, "device": "cpu"}
X, Y = make_texts(40)
LABELS = [
    [
        -1 if place == 0 and len(text) > 1 else int(token[1] > 2)
        for place, token in enumerate(text)
    ]
    for text in X
]


def test_score_is_the_accuracy_over_labelled_tokens() -> None:
    probe = PlugTokenClassifier(max_epochs=10, **QUICK).fit(X, LABELS)
    right, total = 0, 0
    for found, own in zip(probe.predict_token_proba(X), LABELS, strict=True):
        for probabilities, label in zip(found, own, strict=True):
            if label >= 0:
                total += 1
                right += int(probabilities.argmax() == label)
    assert probe.score(X, LABELS) == pytest.approx(right / total)


def test_score_of_a_text_of_weight_two_is_that_of_the_text_twice() -> None:
    probe = PlugTokenClassifier(max_epochs=2, **QUICK).fit(X, LABELS)
    weight = np.ones(len(X))
    weight[:7] = 2
    twice = probe.score([*X, *X[:7]], [*LABELS, *LABELS[:7]])
    assert probe.score(X, LABELS, sample_weight=weight) == pytest.approx(twice)


def test_labels_of_tokens_can_be_cross_validated() -> None:
    probe = PlugTokenClassifier(max_epochs=2, **QUICK)
    folds = KFold(2, shuffle=True, random_state=0)
    expected = [
        PlugTokenClassifier(max_epochs=2, **QUICK)
        .fit(X[train], [LABELS[row] for row in train])
        .score(X[test], [LABELS[row] for row in test])
        for train, test in folds.split(X)
    ]
    assert_allclose(cross_val_score(probe, X, LABELS, cv=folds), expected)


def test_score_of_labels_of_texts_is_their_accuracy() -> None:
    probe = PlugTokenClassifier(max_epochs=2, **QUICK).fit(X, Y)
    assert probe.score(X, Y) == np.mean(probe.predict(X) == Y)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([[-1] * len(text) for text in X], "must label at least one token"),
        ([[0], *LABELS[1:-1], [0] * 99], "at position"),
        (LABELS[:-1], "inconsistent numbers of samples"),
    ],
)
def test_wrong_labels_of_tokens_are_not_scored(y: object, message: str) -> None:
    probe = PlugTokenClassifier(max_epochs=2, **QUICK).fit(X, LABELS)
    with pytest.raises(ValueError, match=message):
        probe.score(X, y)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (-np.ones(len(X)), "Negative values"),
        (np.full(len(X), np.nan), "NaN"),
        (np.ones((len(X), 2)), "1D array"),
        (np.zeros(len(X)), "at least one non-zero"),
        (np.ones(3), "shape"),
    ],
)
def test_wrong_weights_are_refused_in_scores_of_tokens(
    weight: object, message: str
) -> None:
    probe = PlugTokenClassifier(max_epochs=1, **QUICK).fit(X, LABELS)
    with pytest.raises(ValueError, match=message):
        probe.score(X, LABELS, sample_weight=weight)  # type: ignore[arg-type]  # wrong by intent
