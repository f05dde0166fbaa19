import re

import numpy as np
import pytest
from _activations import X, Y
from sklearn.metrics import f1_score, make_scorer
from skorch.callbacks import BatchScoring, EpochScoring, LRScheduler, PrintLog

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
