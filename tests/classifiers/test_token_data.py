"""Texts and labels of validation rows, and what is refused in token features."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from plug_sklearn import PlugTokenClassifier

QUICK: dict[str, Any] = {
    "max_epochs": 2,
    "n_members": 2,
    "random_state": 0,
    "device": "cpu",
}
X = np.random.default_rng(0).normal(size=(24, 5, 4)).astype(np.float32)
Y = (X[:, 0, 0] > 0).astype(int)
LABELS = (X[..., 0] > 0).astype(int)
UNLABELLED = np.full((3, 5), -1)


@pytest.mark.parametrize(
    ("y", "y_val", "message"),
    [
        (Y, LABELS[:3], "must hold labels of texts"),
        (LABELS, Y[:3], "must hold labels of tokens"),
        (LABELS, UNLABELLED, "'y_val' given to .* must label at least one token"),
        (LABELS, LABELS[:3] + 5, "must hold labels that y holds"),
        (Y, Y[:3] + 5, "must hold labels that y holds"),
        (LABELS, LABELS[:2], "inconsistent numbers of samples"),
    ],
)
def test_wrong_validation_labels_are_refused(
    y: object, y_val: object, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        PlugTokenClassifier(**QUICK).fit(X, y, X_val=X[:3], y_val=y_val)


def test_validation_texts_without_labels_have_no_effect() -> None:
    labels = np.concatenate([LABELS[:6], UNLABELLED])
    losses = [
        PlugTokenClassifier(**QUICK)
        .fit(X, LABELS, X_val=X[:n_texts], y_val=labels[:n_texts])
        .history_[-1]["valid_loss"]
        for n_texts in (6, 9)
    ]
    assert losses[0] == pytest.approx(losses[1])


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ([[1.0, 2.0], [3.0]], "position 1"),
        (np.array([["a"] * 4]), "position 1"),
        (torch.ones(1, 4).bfloat16(), "Got Tensor at position 1 instead .*BFloat16"),
        (torch.ones(1, 4).requires_grad_(), "Got Tensor at position 1 instead .*grad"),
        (np.ones(4), "of shape \\(4,\\) at position 1"),
        (np.ones((0, 4)), "at least one token"),
        (np.full((1, 4), 1e300), "NaN or infinity. Found one at position 1"),
        (np.ones((2, 3)), "Got 3 at position 1"),
    ],
)
def test_an_item_that_is_no_text_is_refused_with_its_position(
    item: object, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        PlugTokenClassifier(**QUICK).fit([X[0], item, *X[2:]], Y)


def test_columns_in_another_order_are_refused() -> None:
    table = pd.DataFrame(X[:, 0], columns=list("abcd"))
    with pytest.warns(UserWarning, match="read as one token"):
        probe = PlugTokenClassifier(**QUICK).fit(table, Y)
    assert probe.feature_names_in_.tolist() == list("abcd")
    with pytest.raises(ValueError, match="feature names should match"):
        probe.predict(table[list("dcba")])
