import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from _activations import X, Y
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import ClassifierMixin
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    get_scorer,
    log_loss,
    make_scorer,
    max_error,
    roc_auc_score,
)
from skorch.callbacks import (
    BatchScoring,
    Callback,
    EarlyStopping,
    EpochScoring,
    LRScheduler,
    PrintLog,
    TrainEndCheckpoint,
)
from torch import nn

from plug_sklearn import PlugMLPClassifier
from plug_sklearn.classifiers._monitoring import (
    KeepBestEpoch,
    StopTraining,
    check_monitor,
    read_callbacks,
    score_macro_auc,
    takes_sample_weight,
)


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


def test_auc_without_rows_of_a_class_becomes_the_loss() -> None:
    probe = PlugMLPClassifier(max_epochs=1, random_state=0, device="cpu")
    three = np.arange(len(X)) % 3
    probe.fit(X, three, X_val=X[:2], y_val=three[:2])
    assert probe.monitor_ == "loss"
    assert "valid_score" not in probe.history_[0]


def test_auc_with_rows_of_each_class_is_monitored() -> None:
    probe = PlugMLPClassifier(max_epochs=1, random_state=0, device="cpu")
    probe.fit(X, np.where(Y, "b", "a"), X_val=X[:2], y_val=["a", "b"])
    assert probe.monitor_ == "roc_auc"
    assert "valid_score" in probe.history_[0]


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


def measure(y: np.ndarray, predicted: np.ndarray, weight: object = None) -> float:
    """Measure nothing: a metric that takes three arguments, as scorers do."""
    return 0.0


@pytest.mark.parametrize(
    "metric",
    [
        roc_auc_score,
        accuracy_score,
        log_loss,
        partial(f1_score, average="macro"),
        lambda y_true, y_pred: 0.0,
        measure,
    ],
)
def test_a_metric_is_refused_with_what_makes_a_scorer_of_it(
    probe: ClassifierMixin, metric: Callable[..., float]
) -> None:
    name = getattr(metric, "__name__", "metric")
    message = (
        f"The 'monitor' parameter of {type(probe).__name__} must be 'loss', the name "
        "of a scikit-learn scorer such as 'roc_auc', or a scorer, which is called as "
        f"scorer(estimator, X, y). Got {metric!r} instead. To use a metric, make a "
        f"scorer from it: sklearn.metrics.make_scorer({name})."
    )
    probe.set_params(monitor=metric)
    # Even where no rows are held out.
    for n_rows in (80, 10):
        with pytest.raises(ValueError, match=re.escape(message)):
            probe.fit(X[:n_rows], Y[:n_rows])


@pytest.mark.parametrize(
    "scorer",
    [
        "roc_auc",
        get_scorer("accuracy"),
        make_scorer(f1_score),
        partial(get_scorer("accuracy"), sample_weight=None),
        lambda estimator, X, y: 0.0,
        lambda *arguments: 0.0,
        max,
    ],
)
def test_scorers_of_any_kind_are_taken(scorer: str | Callable[..., float]) -> None:
    check_monitor(scorer, "Probe")


def test_scorers_take_weights_where_they_or_their_metric_do() -> None:
    assert takes_sample_weight(get_scorer("accuracy"))
    assert takes_sample_weight(lambda estimator, X, y, sample_weight: 0.0)
    assert not takes_sample_weight(make_scorer(max_error))
    assert not takes_sample_weight(lambda estimator, X, y: 0.0)
    assert not takes_sample_weight(max)


class FakeNet:
    """Epochs of given scores and losses; each sets the weight to its number."""

    def __init__(self) -> None:
        self.module_ = nn.Linear(1, 1, bias=False)
        self.history: list[dict[str, float]] = []

    def run(
        self, keeper: KeepBestEpoch, scores: Sequence[float], losses: Sequence[float]
    ) -> float:
        keeper.on_train_begin(self)
        for number, (score, loss) in enumerate(zip(scores, losses, strict=True), 1):
            with torch.no_grad():
                self.module_.weight.fill_(number)
            self.history.append(
                {"epoch": number, "valid_score": score, "valid_loss": loss}
            )
            try:
                keeper.on_epoch_end(self)
            except StopTraining:
                break
        keeper.on_train_end(self)
        return self.module_.weight.item()


CASES = SimpleNamespace(
    highest=([0.5, 0.7, 0.6, 0.6], [1.0, 1.0, 0.1, 0.1], 2),
    tie_by_loss=([0.7, 0.7, 0.7, 0.7], [1.0, 0.8, 0.5, 0.6], 3),
    near_tie_by_loss=([0.700, 0.705, 0.698, 0.5], [1.0, 0.9, 0.5, 0.1], 3),
    near_tie_of_higher_loss=([0.700, 0.705, 0.705, 0.705], [0.5, 0.9, 0.9, 0.9], 1),
    no_slow_slide=([0.70, 0.695, 0.685, 0.68], [1.0, 0.9, 0.8, 0.7], 2),
    nan_loss=([0.7, 0.9, 0.6, 0.6], [1.0, np.nan, 1.0, 1.0], 1),
    nan_score=([np.nan, 0.5, 0.4, 0.4], [1.0, 1.0, 1.0, 1.0], 2),
)


@pytest.mark.parametrize("name", vars(CASES))
def test_weights_of_the_best_epoch_are_restored(name: str) -> None:
    scores, losses, best = getattr(CASES, name)
    keeper = KeepBestEpoch(use_score=True, patience=10, min_delta=0.01)
    assert FakeNet().run(keeper, scores, losses) == best
    assert keeper.best_epoch_ == best


def test_loss_alone_decides_without_a_score() -> None:
    keeper = KeepBestEpoch(use_score=False, patience=10, min_delta=0.0)
    assert FakeNet().run(keeper, [0.9, 0.8, 0.7], [1.0, 0.5, 0.6]) == 2


def test_training_ends_after_patience_epochs_without_a_better_one() -> None:
    net = FakeNet()
    keeper = KeepBestEpoch(use_score=True, patience=3, min_delta=0.0)
    net.run(keeper, [0.5, 0.6, *[0.55] * 20], [1.0] * 22)
    assert len(net.history) == 5


def test_smaller_improvements_than_min_delta_do_not_prolong_training() -> None:
    net = FakeNet()
    keeper = KeepBestEpoch(use_score=False, patience=3, min_delta=0.01)
    net.run(keeper, [0.0] * 20, [1 - 0.001 * i for i in range(20)])
    assert len(net.history) == 4


def test_objects_classes_and_named_callbacks_are_kept() -> None:
    items = [PrintLog(), LRScheduler, ("log", PrintLog())]
    assert read_callbacks(tuple(items), "Probe") == items
    assert read_callbacks(None, "Probe") == []


@pytest.mark.parametrize("bad", ["oops", 3, None, ("log", "oops"), (1, PrintLog()), ()])
def test_what_is_no_callback_is_an_error(bad: object) -> None:
    message = (
        "The 'callbacks' parameter of Probe must hold callbacks of skorch, or (name, "
        f"callback). Got {bad!r} instead."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        read_callbacks([PrintLog(), bad], "Probe")


@pytest.mark.parametrize("names", [["log", "log"], ["valid_loss"]])
def test_a_name_that_is_taken_is_an_error(names: list[str]) -> None:
    items = [(name, PrintLog()) for name in names]
    with pytest.raises(ValueError, match=re.escape(f"Got ['{names[0]}'] instead")):
        read_callbacks(items, "Probe")


SCORINGS = ["accuracy", "roc_auc", "neg_log_loss", make_scorer(f1_score)]


@pytest.mark.parametrize("scoring", SCORINGS)
@pytest.mark.parametrize("use_caching", [False, True])
def test_scores_of_epochs_are_those_of_the_network(
    probe: ClassifierMixin, scoring: object, use_caching: bool
) -> None:
    callback = EpochScoring(scoring, name="scored", use_caching=use_caching)
    probe.set_params(callbacks=[callback], monitor=scoring)
    probe.fit(X[:56], Y[:56], X_val=X[56:], y_val=Y[56:])
    for epoch in probe.history_:
        # Batches are scored in single precision, the monitor's rows in double.
        assert epoch["scored"] == pytest.approx(epoch["valid_score"], rel=1e-5)


def test_training_rows_are_scored_by_epoch_and_by_batch(
    probe: ClassifierMixin,
) -> None:
    callbacks = [
        EpochScoring("accuracy", on_train=True, name="by_epoch"),
        BatchScoring("accuracy", on_train=True, name="by_batch"),
    ]
    probe.set_params(callbacks=callbacks, max_epochs=2, batch_size=8).fit(X, Y)
    for epoch in probe.history_:
        assert 0 <= epoch["by_epoch"] <= 1
        assert epoch["by_epoch"] == pytest.approx(epoch["by_batch"])


def test_callbacks_see_labels_as_their_positions_in_classes(
    probe: ClassifierMixin,
) -> None:
    seen = []

    def score(net: object, X: object, y: np.ndarray) -> float:
        seen.extend(y)
        return 0.0

    probe.set_params(callbacks=[EpochScoring(score)], max_epochs=1)
    probe.fit(X, Y, X_val=X, y_val=Y)
    named = np.where(Y, "yes", "no")
    probe.fit(X, named, X_val=X, y_val=named)
    assert seen == [*Y, *Y]


@pytest.mark.parametrize("calibrate", [False, True])
def test_a_checkpoint_at_the_end_of_training_holds_what_the_estimator_keeps(
    probe: ClassifierMixin, calibrate: bool, tmp_path: Path
) -> None:
    checkpoint = TrainEndCheckpoint(dirname=tmp_path, sink=lambda text: None)
    probe.set_params(callbacks=[checkpoint], calibrate=calibrate)
    probe.set_params(max_epochs=30, patience=3, min_delta=0.1).fit(X, Y)
    assert probe.best_epoch_ < probe.n_iter_
    assert (probe.net_.module_.temperature.factor == 1) == (not calibrate)
    stored = torch.load(tmp_path / "train_end_params.pt", weights_only=True)
    kept = probe.net_.module_.state_dict()
    assert stored.keys() == kept.keys()
    for name, value in kept.items():
        assert torch.equal(stored[name], value), name


def test_callbacks_predict_as_the_estimator_at_the_end_of_training(
    probe: ClassifierMixin,
) -> None:
    class Predicts(Callback):
        def on_train_end(self, net: object, **kwargs: object) -> None:
            self.found = net.compute_probabilities(X)

    callback = Predicts()
    probe.set_params(callbacks=[callback], max_epochs=30, patience=3, min_delta=0.1)
    probabilities = probe.fit(X, Y).predict_proba(X)
    assert np.array_equal(callback.found, probabilities)


def test_weights_that_a_callback_loads_at_the_end_are_not_kept(
    probe: ClassifierMixin,
) -> None:
    probe.set_params(max_epochs=10, patience=10)
    expected = probe.fit(X, Y).predict_proba(X)
    stopper = EarlyStopping(
        "train_loss", patience=30, load_best=True, sink=lambda text: None
    )
    found = probe.set_params(callbacks=[stopper]).fit(X, Y).predict_proba(X)
    assert stopper.best_model_weights_ is not None
    assert np.array_equal(found, expected)
