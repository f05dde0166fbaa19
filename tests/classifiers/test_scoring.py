import numpy as np
import pytest
from _activations import X, Y
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from plug_sklearn import PlugMLPClassifier
from plug_sklearn.classifiers._inputs import LabelledRows, ValidationRows
from plug_sklearn.classifiers._scoring import choose_scoring, score_macro_auc


@given(
    n_classes=st.integers(2, 4),
    seed=st.integers(0, 1000),
    n_values=st.sampled_from([2, 5, 1000]),
)
def test_auc_is_scikit_learns_with_ties_and_weights(
    n_classes: int, seed: int, n_values: int
) -> None:
    rng = np.random.default_rng(seed)
    codes = np.concatenate([np.arange(n_classes), rng.integers(n_classes, size=30)])
    drawn = rng.integers(1, n_values + 1, size=(len(codes), n_classes))
    probabilities = drawn / drawn.sum(axis=1, keepdims=True)
    if n_classes == 2:  # 1/1024ths, so that 1 - p ties exactly where p does
        probabilities = np.column_stack([1024 - drawn[:, 1], drawn[:, 1]]) / 1024
    weight = rng.uniform(0.1, 3, size=len(codes))
    scores = probabilities[:, 1] if n_classes == 2 else probabilities
    expected = roc_auc_score(codes, scores, multi_class="ovr", sample_weight=weight)
    assert score_macro_auc(codes, probabilities, weight) == pytest.approx(expected)


def test_auc_of_nan_is_nan() -> None:
    assert np.isnan(score_macro_auc(np.arange(2), np.full((2, 2), np.nan), np.ones(2)))


def validation_rows(codes: list[int]) -> ValidationRows:
    n = len(codes)
    rows = LabelledRows(np.zeros((n, 1), np.float32), np.array(codes), np.ones(n))
    return ValidationRows(rows)


def test_auc_without_rows_of_a_class_becomes_the_loss() -> None:
    classes = np.array(["a", "b", "c"])
    monitored, callbacks = choose_scoring(
        "roc_auc", validation_rows([0, 1]), classes, "Probe"
    )
    assert monitored == "loss"
    assert not callbacks


def test_auc_with_rows_of_each_class_is_monitored() -> None:
    classes = np.array(["a", "b"])
    monitored, callbacks = choose_scoring(
        "roc_auc", validation_rows([0, 1]), classes, "Probe"
    )
    assert monitored == "roc_auc"
    assert [name for name, _ in callbacks] == ["valid_score"]


@pytest.mark.parametrize("n_members", [1, 5])
def test_scores_count_the_weights_of_held_out_rows(n_members: int) -> None:
    seen: dict[str, list[float]] = {"weights": [], "scores": []}

    def score(
        estimator: object,
        X: np.ndarray,
        y: np.ndarray,
        sample_weight: np.ndarray | None = None,
    ) -> float:
        assert sample_weight is not None
        seen["weights"].append(sample_weight.sum())
        seen["scores"].append(float(X[0, 0, 0, 0]))
        return seen["scores"][-1]

    probe = PlugMLPClassifier(
        monitor=score, max_epochs=1, n_members=n_members, random_state=0, device="cpu"
    )
    weight = np.random.default_rng(0).integers(1, 9, size=80)
    probe.fit(X, Y, sample_weight=weight)
    assert len(seen["scores"]) == n_members
    expected = np.average(seen["scores"], weights=seen["weights"])
    assert probe.history_[0]["valid_score"] == pytest.approx(expected)
