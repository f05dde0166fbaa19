"""Both estimators: samples with several labels, as of annotators who disagree."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from skorch.callbacks import Callback

from plug_sklearn import PlugCNNClassifier, PlugMLPClassifier

N_SAMPLES, N_VOTES = 60, 20
RNG = np.random.default_rng(0)
COEFFICIENTS = RNG.normal(size=8)
COEFFICIENTS /= np.linalg.norm(COEFFICIENTS)


def follow_law(X: np.ndarray) -> np.ndarray:
    """Give the probability of class 1, a logistic function of the features."""
    return 1 / (1 + np.exp(-X @ COEFFICIENTS))


SAMPLES = RNG.normal(size=(N_SAMPLES, 8))
VOTES = RNG.random((N_SAMPLES, N_VOTES)) < follow_law(SAMPLES)[:, None]
X_TEST = RNG.normal(size=(2000, 8))
Y_TEST = RNG.random(2000) < follow_law(X_TEST)
X, Y = np.repeat(SAMPLES, N_VOTES, axis=0), VOTES.ravel().astype(int)


class SidesRecorder(Callback):
    """Keeps the samples of each member in training, and in validation."""

    def on_epoch_begin(
        self,
        net: object,
        dataset_train: Any,  # noqa: ANN401 - private
        dataset_valid: Any,  # noqa: ANN401 - private
        **kwargs: object,
    ) -> None:
        self.sides = [
            [
                {sample.tobytes() for sample in rows[p[y >= 0]]}
                for p, y in zip(dataset.positions.T, dataset.y.T, strict=True)
            ]
            for dataset in (dataset_train, dataset_valid)
            for rows in [dataset.put_in_order().numpy()]
        ]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("classifier", [PlugMLPClassifier, PlugCNNClassifier])
def test_votes_teach_as_much_as_they_teach_logistic_regression(
    classifier: type[ClassifierMixin], seed: int
) -> None:
    linear = LogisticRegression().fit(X, Y).predict_proba(X_TEST)
    probabilities = (
        classifier(random_state=seed, device="cpu").fit(X, Y).predict_proba(X_TEST)
    )
    assert log_loss(Y_TEST, probabilities) < log_loss(Y_TEST, linear) + 0.01
    area = roc_auc_score(Y_TEST, linear[:, 1])
    assert roc_auc_score(Y_TEST, probabilities[:, 1]) > area - 0.01


@pytest.mark.parametrize("n_features", [5, 20])
def test_few_votes_teach_cnns_as_much_as_mlps(n_features: int) -> None:
    rng = np.random.default_rng(2)
    coefficients = 2 * rng.normal(size=n_features) / np.sqrt(n_features)
    samples = rng.normal(size=(1060, n_features))
    probability = 1 / (1 + np.exp(-samples @ coefficients))
    votes = rng.random((60, 10)) < probability[:60, None]
    y_test = rng.random(1000) < probability[60:]
    losses = []
    for classifier in (PlugCNNClassifier, PlugMLPClassifier):
        probe = classifier(random_state=0, device="cpu")
        probe.fit(np.repeat(samples[:60], 10, axis=0), votes.ravel())
        losses.append(log_loss(y_test, probe.predict_proba(samples[60:])))
    assert losses[0] < losses[1] + 0.01


@pytest.mark.parametrize(
    "change",
    [
        np.float64,
        np.float32,
        lambda X: X.reshape(-1, 2, 4),
        lambda X: X.reshape(-1, 2, 1, 4),
        pd.DataFrame,
        # The same number in other bytes.
        lambda X: np.where(np.arange(len(X))[:, None] % 2, -0.0, 0.0) * X + X,
    ],
    ids=["float64", "float32", "3-D", "4-D", "frame", "signed zeros"],
)
def test_no_sample_is_trained_and_validated_on(
    probe: ClassifierMixin, change: Callable[[np.ndarray], object]
) -> None:
    samples = X.copy()
    samples[:, 0] = 0.0
    recorder = SidesRecorder()
    named = change(samples)
    if isinstance(named, pd.DataFrame):
        named.columns = [f"unit_{number}" for number in named]
    probe.set_params(callbacks=[recorder], max_epochs=1).fit(named, Y)
    for trained, validated in zip(*recorder.sides, strict=True):
        assert len(trained | validated) == N_SAMPLES
        assert len(validated) == pytest.approx(N_SAMPLES / 5, abs=1)
        assert not trained & validated


def test_soft_labels_are_votes(probe: ClassifierMixin) -> None:
    shares = VOTES.mean(axis=1)
    weight = N_VOTES * np.concatenate([1 - shares, shares])
    soft = np.concatenate([SAMPLES, SAMPLES]), np.repeat([0, 1], N_SAMPLES)
    as_votes = probe.fit(X, Y).predict_proba(X_TEST)
    as_soft = probe.fit(*soft, sample_weight=weight).predict_proba(X_TEST)
    np.testing.assert_allclose(as_soft, as_votes, rtol=1e-5)


@pytest.mark.parametrize("monitor", ["accuracy", "neg_log_loss"])
def test_scorers_count_the_votes(monitor: str) -> None:
    probe = PlugMLPClassifier(monitor=monitor, max_epochs=60, random_state=0)
    probabilities = probe.fit(X, Y).predict_proba(X_TEST)[:, 1]
    linear = LogisticRegression().fit(X, Y).predict_proba(X_TEST)[:, 1]
    area = roc_auc_score(Y_TEST, linear)
    assert roc_auc_score(Y_TEST, probabilities) > area - 0.02
    best = probe.history_[probe.best_epoch_ - 1]["valid_score"]
    # Each sample has both labels, so that rows without weights say nothing.
    assert best > {"accuracy": 0.55, "neg_log_loss": -0.67}[monitor]
