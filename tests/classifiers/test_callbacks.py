import re
from pathlib import Path

import numpy as np
import pytest
import torch
from _activations import X, Y
from sklearn.metrics import f1_score, make_scorer
from skorch.callbacks import (
    BatchScoring,
    Callback,
    EarlyStopping,
    EpochScoring,
    LRScheduler,
    PrintLog,
    TrainEndCheckpoint,
)

from plug_sklearn.classifiers._callbacks import read_callbacks
from plug_sklearn.classifiers._classifiers import BasePlugClassifier


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
    probe: BasePlugClassifier, scoring: object, use_caching: bool
) -> None:
    callback = EpochScoring(scoring, name="scored", use_caching=use_caching)
    probe.set_params(callbacks=[callback], monitor=scoring)
    probe.fit(X[:56], Y[:56], X_val=X[56:], y_val=Y[56:])
    for epoch in probe.history_:
        # Batches are scored in single precision, the monitor's rows in double.
        assert epoch["scored"] == pytest.approx(epoch["valid_score"], rel=1e-5)


def test_training_rows_are_scored_by_epoch_and_by_batch(
    probe: BasePlugClassifier,
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
    probe: BasePlugClassifier,
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
    probe: BasePlugClassifier, calibrate: bool, tmp_path: Path
) -> None:
    checkpoint = TrainEndCheckpoint(dirname=tmp_path, sink=lambda text: None)
    probe.set_params(callbacks=[checkpoint], calibrate=calibrate)
    probe.set_params(max_epochs=30, patience=3, min_delta=0.1).fit(X, Y)
    assert probe.best_epoch_ < probe.n_iter_
    assert (probe.net_.module_.sharpness.factor == 1) == (not calibrate)
    stored = torch.load(tmp_path / "train_end_params.pt", weights_only=True)
    kept = probe.net_.module_.state_dict()
    assert stored.keys() == kept.keys()
    for name, value in kept.items():
        assert torch.equal(stored[name], value), name


def test_callbacks_predict_as_the_estimator_at_the_end_of_training(
    probe: BasePlugClassifier,
) -> None:
    class Predicts(Callback):
        def on_train_end(self, net: object, **kwargs: object) -> None:
            self.found = net.compute_probabilities(X)

    callback = Predicts()
    probe.set_params(callbacks=[callback], max_epochs=30, patience=3, min_delta=0.1)
    probabilities = probe.fit(X, Y).predict_proba(X)
    assert np.array_equal(callback.found, probabilities)


def test_weights_that_a_callback_loads_at_the_end_are_not_kept(
    probe: BasePlugClassifier,
) -> None:
    probe.set_params(max_epochs=10, patience=10)
    expected = probe.fit(X, Y).predict_proba(X)
    stopper = EarlyStopping(
        "train_loss", patience=30, load_best=True, sink=lambda text: None
    )
    found = probe.set_params(callbacks=[stopper]).fit(X, Y).predict_proba(X)
    assert stopper.best_model_weights_ is not None
    assert np.array_equal(found, expected)
