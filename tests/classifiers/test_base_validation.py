"""Both estimators: held-out rows, scores and stopping."""

import signal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from _activations import X, Y
from sklearn.base import ClassifierMixin
from sklearn.metrics import roc_auc_score
from skorch.callbacks import Callback, EarlyStopping

RNG = np.random.default_rng(1)
X_VAL, Y_VAL = X[60:], Y[60:]


class Recorder(Callback):
    """Keeps the rows that each member is trained and validated on."""

    def on_epoch_begin(
        self,
        net: Any,  # noqa: ANN401 - skorch is untyped
        dataset_train: Any = None,  # noqa: ANN401 - as above
        dataset_valid: Any = None,  # noqa: ANN401 - as above
        **kwargs: object,
    ) -> None:
        self.training = list_rows(dataset_train)
        self.validation = list_rows(dataset_valid)


def list_rows(dataset: Any) -> list[np.ndarray]:  # noqa: ANN401 - private
    if dataset is None:
        return []
    rows = dataset.put_in_order().numpy()
    if dataset.positions is None:
        return [rows]
    columns = zip(dataset.positions.T, dataset.y.T, strict=True)
    return [rows[p[y >= 0]] for p, y in columns]


def test_no_group_is_trained_and_validated_on(probe: ClassifierMixin) -> None:
    groups = np.arange(80) // 8
    X_named = X.copy()
    X_named[:, 0, 0, 0] = groups
    recorder = Recorder()
    probe.set_params(callbacks=[recorder]).fit(X_named, Y, groups=groups)
    assert len(recorder.training) == len(recorder.validation) == probe.n_members == 5
    for trained, validated in zip(recorder.training, recorder.validation, strict=True):
        training = set(trained[:, 0, 0, 0])
        validation = set(validated[:, 0, 0, 0])
        assert training | validation == set(range(10))
        assert not training & validation


def test_each_row_is_held_out_by_one_of_five_members(
    probe: ClassifierMixin,
) -> None:
    X_named = X.copy()
    X_named[:, 0, 0, 0] = np.arange(80)
    recorder = Recorder()
    probe.set_params(callbacks=[recorder]).fit(X_named, Y)
    held_out = np.concatenate(recorder.validation)[:, 0, 0, 0]
    assert sorted(held_out) == list(range(80))


def test_held_out_rows_are_the_fraction_of_each_class(
    probe: ClassifierMixin,
) -> None:
    X_named = X.copy()
    X_named[:, 0, 0, 0] = Y
    recorder = Recorder()
    probe.set_params(callbacks=[recorder], validation_fraction=0.25).fit(X_named, Y)
    for trained, validated in zip(recorder.training, recorder.validation, strict=True):
        assert len(trained) == 60
        assert validated[:, 0, 0, 0].tolist().count(1) == 10
        assert len(validated) == 20


def test_validation_rows_given_replace_those_held_out(
    probe: ClassifierMixin,
) -> None:
    recorder = Recorder()
    probe.set_params(callbacks=[recorder])
    probe.fit(X[:60], Y[:60], X_val=X_VAL, y_val=Y_VAL)
    assert [len(rows) for rows in recorder.training] == [60] * 5
    np.testing.assert_array_equal(recorder.validation, [X_VAL.astype(np.float32)])


@pytest.mark.parametrize("n_samples", [2, 3, 4, 19])
def test_few_rows_are_all_trained_on_for_all_epochs(
    probe: ClassifierMixin, n_samples: int
) -> None:
    recorder = Recorder()
    probe.set_params(callbacks=[recorder]).fit(X[:n_samples], Y[:n_samples])
    assert [len(rows) for rows in recorder.training] == [n_samples] * 5
    assert not recorder.validation
    assert probe.monitor_ is None
    assert probe.n_iter_ == probe.best_epoch_ == 4
    assert np.isfinite(probe.predict_proba(X)).all()


def test_as_many_classes_as_rows_can_be_trained_on(probe: ClassifierMixin) -> None:
    probe.fit(X[:20], np.arange(20))
    assert probe.predict_proba(X).shape == (80, 20)
    assert probe.monitor_ is None


def test_loss_is_monitored_where_a_class_has_one_row(
    probe: ClassifierMixin,
) -> None:
    labels = np.where(np.arange(80) == 5, 2, Y)
    assert probe.fit(X, labels).monitor_ == "loss"
    assert "valid_score" not in probe.history_[0]


def test_without_early_stopping_all_rows_are_trained_on_for_all_epochs(
    probe: ClassifierMixin,
) -> None:
    recorder = Recorder()
    probe.set_params(early_stopping=False, patience=1, callbacks=[recorder]).fit(X, Y)
    assert [len(rows) for rows in recorder.training] == [80] * 5
    assert probe.n_iter_ == 4


def test_weights_of_the_best_epoch_are_kept(probe: ClassifierMixin) -> None:
    noise = RNG.normal(size=(80, 3, 2, 8))
    probe.set_params(max_epochs=60, patience=5, lr=0.02)
    probe.fit(noise[:40], Y[:40], X_val=noise[40:], y_val=Y[40:])
    assert probe.n_iter_ - probe.best_epoch_ == 5
    probabilities = probe.predict_proba(noise[40:])
    best = probe.history_[probe.best_epoch_ - 1]
    expected = roc_auc_score(Y[40:], probabilities[:, 1])
    assert best["valid_score"] == pytest.approx(expected, abs=1e-6)


def test_min_delta_above_all_improvement_keeps_the_first_epoch(
    probe: ClassifierMixin,
) -> None:
    probe.set_params(max_epochs=30, patience=3, min_delta=100.0).fit(X, Y)
    assert (probe.best_epoch_, probe.n_iter_) == (1, 4)


def test_scorers_score_a_single_network_too(probe: ClassifierMixin) -> None:
    probe.set_params(monitor="neg_brier_score", n_members=1).fit(X, Y)
    assert all(-1 <= epoch["valid_score"] <= 0 for epoch in probe.history_)


@pytest.mark.parametrize("monitor", ["accuracy", lambda e, X, y: e.score(X, y)])
def test_scorers_score_the_epochs(probe: ClassifierMixin, monitor: object) -> None:
    labels = np.where(Y, "yes", "no")
    probe.set_params(monitor=monitor)
    probe.fit(X[:60], labels[:60], X_val=X_VAL, y_val=labels[60:])
    best = probe.history_[probe.best_epoch_ - 1]
    assert best["valid_score"] == probe.score(X_VAL, labels[60:])
    assert probe.monitor_ is monitor


@pytest.mark.parametrize("score", [float("nan"), np.float32("nan"), None, "high"])
def test_a_score_that_is_no_number_is_an_error(
    probe: ClassifierMixin, score: object
) -> None:
    probe.set_params(monitor=lambda estimator, X, y: score)
    with pytest.raises(ValueError) as raised:
        probe.fit(X, Y)
    assert str(raised.value) == (
        f"The 'monitor' parameter of {type(probe).__name__} must be a scorer that "
        f"gives a number for the validation samples. Got {score!r} from it instead."
    )


def test_divergence_is_not_blamed_on_the_monitor(probe: ClassifierMixin) -> None:
    probe.set_params(monitor="neg_log_loss", lr=1e30)
    with pytest.raises(ValueError, match="'lr' parameter"):
        probe.fit(X, Y)


def test_loss_can_be_monitored(probe: ClassifierMixin) -> None:
    probe.set_params(monitor="loss", min_delta=0.0).fit(X, Y)
    losses = [epoch["valid_loss"] for epoch in probe.history_]
    assert probe.best_epoch_ == 1 + int(np.argmin(losses))


def test_history_is_a_table(probe: ClassifierMixin) -> None:
    table = pd.DataFrame(probe.fit(X, Y).history_)
    assert table["epoch"].tolist() == [1, 2, 3, 4]
    assert set(table) == {"epoch", "train_loss", "valid_loss", "valid_score"}
    assert table.dtypes.map(pd.api.types.is_numeric_dtype).all()


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_while_scoring_gets_out_of_fit(
    probe: ClassifierMixin,
) -> None:
    def score(estimator: object, X: np.ndarray, y: np.ndarray) -> float:
        signal.raise_signal(signal.SIGINT)
        return 0.0

    with pytest.raises(KeyboardInterrupt):
        probe.set_params(monitor=score).fit(X, Y)
    assert not hasattr(probe, "net_")


def test_a_callback_can_end_training(probe: ClassifierMixin) -> None:
    class Ends(Callback):
        def on_epoch_end(self, net: object, **kwargs: object) -> None:
            raise KeyboardInterrupt

    callbacks = [("ends", Ends())]
    probe.set_params(callbacks=callbacks).fit(X, Y)
    assert probe.n_iter_ == 1
    assert len(callbacks) == 1


def test_a_callback_that_ends_training_before_it_begins_is_an_error(
    probe: ClassifierMixin,
) -> None:
    class Ends(Callback):
        def on_epoch_begin(self, net: object, **kwargs: object) -> None:
            raise KeyboardInterrupt

    with pytest.raises(ValueError, match=r"'callbacks' parameter .* not stop training"):
        probe.set_params(callbacks=[Ends()]).fit(X, Y)


def test_early_stopping_of_skorch_ends_training(probe: ClassifierMixin) -> None:
    stopper = EarlyStopping(patience=1, threshold=1.0, sink=lambda text: None)
    probe.set_params(callbacks=[stopper], max_epochs=30).fit(X, Y)
    assert probe.n_iter_ == 2
