from typing import Any

import numpy as np
import pytest
import torch
from _texts import gather, make_texts
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch.nn import functional as F

from plug_sklearn import PlugTokenClassifier
from plug_sklearn.classifiers._token_training import TokenLoss

QUICK: dict[str, Any] = {"random_state": 0, "device": "cpu"}
TWO_MEMBERS = QUICK | {"n_members": 2}


class CountSteps(Callback):
    """Count the training batches of the first epoch."""

    def on_train_begin(self, net: NeuralNet, **kwargs: object) -> None:
        self.n_steps_ = 0

    def on_batch_end(
        self, net: NeuralNet, training: bool = False, **kwargs: object
    ) -> None:
        self.n_steps_ += training and len(net.history) == 1


def make_weak_texts(n_texts: int, seed: int) -> tuple[Any, NDArray[np.int64]]:
    """Make texts of which one of 64 features is a little larger in the second class."""
    rng = np.random.default_rng(seed)
    y = np.arange(n_texts) % 2
    texts = [rng.normal(size=(rng.integers(3, 40), 64)) for _ in y]
    for text, label in zip(texts, y, strict=True):
        text[:, 0] += 0.6 * label
    return gather(text.astype(np.float32) for text in texts), y


def test_probe_learns_from_few_texts() -> None:
    areas = []
    for seed in range(4):
        train, test = make_weak_texts(60, seed), make_weak_texts(300, 100 + seed)
        probe = PlugTokenClassifier(max_epochs=20, **QUICK).fit(*train)
        areas.append(roc_auc_score(test[1], probe.predict_proba(test[0])[:, 1]))
    # With 32 texts in a batch, it is 0.58.
    assert np.mean(areas) > 0.68


@pytest.mark.parametrize(
    ("n_texts", "batch_size", "n_steps"),
    [(64, 32, 16), (20, 32, 5), (320, 32, 16), (320, 8, 40), (64, 2, 32)],
)
def test_an_epoch_of_few_texts_has_more_and_smaller_batches(
    n_texts: int, batch_size: int, n_steps: int
) -> None:
    counter = CountSteps()
    PlugTokenClassifier(
        max_epochs=1, batch_size=batch_size, callbacks=[counter], **QUICK
    ).fit(*make_texts(n_texts))
    assert counter.n_steps_ == n_steps


@pytest.mark.parametrize(
    "parameters",
    [
        {"n_members": 1},
        {"n_members": 7},
        {"linear_path": False},
        {"aggregation": "rolling", "window": 3},
        {"sizing": "budget"},
    ],
)
def test_members_are_validated_on_their_own_texts_as_if_all_read_all(
    parameters: dict[str, Any],
) -> None:
    X, y = make_texts(90)
    labels = np.array(["a", "b", "c"])[(y + np.arange(90) // 7) % 3]
    settings = QUICK | {"max_epochs": 4} | parameters
    found = PlugTokenClassifier(**settings).fit(X, labels)
    # With callbacks of users, all members read all texts that any holds out.
    expected = PlugTokenClassifier(callbacks=[Callback()], **settings).fit(X, labels)
    for own, other in zip(found.history_, expected.history_, strict=True):
        for name in ("train_loss", "valid_loss", "valid_score"):
            assert_allclose(own[name], other[name], rtol=1e-5)
    assert_allclose(found.predict_proba(X), expected.predict_proba(X), atol=1e-5)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_loss_is_that_of_a_plain_loop_over_spans(weight: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(9, 1, 3, generator=generator)
    codes = torch.tensor([0, 1, 1, 1, 2, 2, -100, 2, 0])[:, None]
    texts = torch.tensor([0, 0, 0, 1, 1, 1, 1, 1, 1])
    weights = torch.rand(9, 1, generator=generator)
    spans = [[0], [1, 2], [3], [4, 5], [6], [7], [8]]
    total = 0.0
    for span in spans:
        own = F.cross_entropy(logits[span, 0], codes[span, 0], reduction="none")
        for token, loss in zip(span, own.tolist(), strict=True):
            mixed = (1 - weight) * loss + weight * own.min().item()
            total += float(weights[token, 0]) * (mixed if codes[token] > 0 else loss)
    found = TokenLoss(weight).compute_span_loss(logits, (codes, weights), texts)
    assert_allclose(found, total / 9, rtol=1e-5)


def test_weight_of_spans_sets_their_strongest_tokens_apart() -> None:
    rng = np.random.default_rng(0)
    X = gather([rng.normal(size=(12, 8)) for _ in range(120)])
    y = [np.zeros(12, dtype=int) for _ in X]
    for text, labels in zip(X[::2], y[::2], strict=True):
        labels[3:9] = 1  # a span, in which one token differs from those of other texts
        text[rng.integers(3, 9), 0] += 8
    margins = []
    for weight in (0.0, 0.5):
        probe = PlugTokenClassifier(
            span_max_weight=weight, monitor="loss", **TWO_MEMBERS
        ).fit(X, y)
        strongest = np.array([own[:, 1].max() for own in probe.predict_token_proba(X)])
        margins.append(strongest[::2].mean() - strongest[1::2].mean())
    assert margins[1] > margins[0] + 0.02


def test_weight_of_spans_changes_nothing_for_labels_of_texts() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 3, 4)), np.arange(40) % 2
    quick = QUICK | {"max_epochs": 3}
    plain = PlugTokenClassifier(**quick).fit(X, y)
    weighed = PlugTokenClassifier(span_max_weight=1.0, **quick).fit(X, y)
    assert_array_equal(plain.predict_proba(X), weighed.predict_proba(X))


@pytest.mark.parametrize("wrong", [-0.1, 1.5, "max", None])
def test_wrong_weights_are_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="'span_max_weight' parameter"):
        PlugTokenClassifier(span_max_weight=wrong).fit(np.zeros((4, 2, 3)), [0, 1] * 2)  # type: ignore[arg-type]  # wrong by intent


def test_weight_may_be_written_as_a_boolean() -> None:
    X = np.random.default_rng(0).normal(size=(20, 6, 4))
    y = [[0, 1, 1, 1, 0, 0] for _ in X]
    losses = [
        PlugTokenClassifier(span_max_weight=weight, max_epochs=1, **TWO_MEMBERS)
        .fit(X, y)
        .history_[0]["train_loss"]
        for weight in (1.0, True)
    ]
    assert losses[0] == losses[1]


def test_loss_on_validation_texts_counts_strongest_tokens_too() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20, 6, 4))
    y = [[0, 1, 1, 1, 0, 0] for _ in X]
    losses = []
    for weight in (0.0, 1.0):
        probe = PlugTokenClassifier(
            span_max_weight=weight, max_epochs=1, lr=1e-9, **TWO_MEMBERS
        ).fit(X, y, X_val=X[:9], y_val=y[:9])
        losses.append(probe.history_[0]["valid_loss"])
    # The strongest token of a span has the smallest loss.
    assert losses[1] < losses[0]
