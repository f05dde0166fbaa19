from typing import Any

import numpy as np
import pytest
from _texts import gather, make_texts
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from skorch import NeuralNet
from skorch.callbacks import Callback

from plug_sklearn import PlugTokenClassifier

QUICK: dict[str, Any] = {"random_state": 0, "device": "cpu"}


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
