import re
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from skorch.callbacks import Callback

from plug_sklearn import PlugMLPClassifier
from plug_sklearn.classifiers import MLPNetwork

RNG = np.random.default_rng(0)
X = RNG.normal(size=(100, 10))
Y = (X[:, 0] > 0).astype(int)


PLAIN = {"n_members": 1, "linear_path": False, "max_epochs": 1}


def test_network_is_sized_by_all_distinct_rows() -> None:
    # 5 x 100 / 10 = 50, 25, 16 units; by hand in test_sizing.
    probe = PlugMLPClassifier(**PLAIN).fit(X, Y)
    assert isinstance(probe.net_.module_, MLPNetwork)
    assert probe.n_parameters_ == 3807
    repeated = PlugMLPClassifier(**PLAIN).fit([*X, *X], [*Y, *Y])
    assert repeated.n_parameters_ == 3807


def test_members_and_their_linear_paths_count_as_parameters() -> None:
    probe = PlugMLPClassifier(max_epochs=1).fit(X, Y)
    assert probe.n_parameters_ == 5 * (3807 + 22)


def test_parameters_reach_the_network_and_the_optimizer() -> None:
    probe = PlugMLPClassifier(
        target_ratio=2.0,
        width_cap=18,
        out_floor=20,
        dropout=0.4,
        input_dropout=0.1,
        n_members=3,
        lr=0.01,
        weight_decay=0.2,
        linear_lr=0.02,
        linear_decay=0.001,
        max_epochs=1,
        callbacks=[keep := KeepOptimizer()],
    ).fit(X, Y)
    net = probe.net_
    assert (net.module__first, net.module__second, net.module__last) == (18, 16, 20)
    assert net.module_.entry[0][3].p == 0.4
    assert net.module_.input_dropout.p == 0.1
    assert net.module_.n_members == 3
    sizes = {2: (0.002, 0.5)}
    for group in keep.groups:
        expected = sizes.get(len(group["params"]), (0.01, 0.2))
        assert (group["lr"], group["weight_decay"]) == expected


class KeepOptimizer(Callback):
    """Keeps the groups of parameters, which are dropped after training."""

    def on_train_end(self, net: Any, **kwargs: object) -> None:  # noqa: ANN401 - skorch
        self.groups = net.optimizer_.param_groups


@pytest.mark.parametrize("n_members", [1, 5])
def test_all_members_together_keep_to_the_budget(n_members: int) -> None:
    wide = RNG.normal(size=(100, 300))
    probe = PlugMLPClassifier(sizing="budget", n_members=n_members, max_epochs=1)
    probe.fit(wide, Y)
    assert probe.n_parameters_ == pytest.approx(500, rel=0.1)


def test_budget_reads_the_directions_of_most_variance() -> None:
    wide = RNG.normal(size=(200, 300))
    labels = np.arange(200) % 2
    wide[:, :40] += 3 * labels[:, None]
    probe = PlugMLPClassifier(sizing="budget", max_epochs=40, random_state=0)
    assert probe.fit(wide, labels).score(wide, labels) > 0.95


def test_more_classes_than_the_budget_allows_warn() -> None:
    probe = PlugMLPClassifier(sizing="budget", target_ratio=1.0, max_epochs=1)
    with pytest.warns(UserWarning, match=r"asks for 100\. No network for 20 classes"):
        probe.fit(X, np.arange(100) % 20)


def test_verbose_prints_the_parameters_a_row(
    capsys: pytest.CaptureFixture[str],
) -> None:
    PlugMLPClassifier(sizing="budget", max_epochs=1, verbose=1).fit(X, Y)
    assert re.match(
        r"\d{3} parameters, [45]\.\d\d per sample\.", capsys.readouterr().out
    )


@pytest.mark.parametrize("monitor", ["loss", "roc_auc"])
def test_calibration_needs_rows_held_out(monitor: str) -> None:
    probe = PlugMLPClassifier(max_epochs=5, random_state=0, monitor=monitor)
    assert probe.fit(X, Y).net_.module_.temperature.factor != 1
    for changed in ({"calibrate": False}, {"early_stopping": False}):
        probe = clone(probe).set_params(**changed).fit(X, Y)
        assert probe.net_.module_.temperature.factor == 1


def test_samples_of_more_axes_are_read_as_their_flattened_features() -> None:
    probe = PlugMLPClassifier(max_epochs=2, random_state=0)
    flat = probe.fit(X, Y).predict_proba(X)
    shaped = X.reshape(100, 5, 1, 2)
    assert np.array_equal(probe.fit(shaped, Y).predict_proba(shaped), flat)
    assert probe.input_shape_ == (5, 1, 2)
    assert probe.n_features_in_ == 5
