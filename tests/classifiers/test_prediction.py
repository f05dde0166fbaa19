import copy
import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from plug_sklearn import PlugMLPClassifier
from plug_sklearn.classifiers import MLPNetwork

#: Most samples of a call that are computed in double precision.
MOST_EXACT_ROWS = 1024


def draw_samples(n_rows: int) -> np.ndarray:
    rng = np.random.default_rng(n_rows)
    return rng.normal(size=(n_rows, 6)).astype(np.float32)


def fit_probe() -> PlugMLPClassifier:
    probe = PlugMLPClassifier(n_members=3, max_epochs=2, random_state=0, device="cpu")
    return probe.fit(draw_samples(60), np.arange(60) % 2)


@pytest.fixture(scope="module")
def fitted() -> PlugMLPClassifier:
    return fit_probe()


@pytest.fixture
def probe(fitted: PlugMLPClassifier) -> PlugMLPClassifier:
    return copy.deepcopy(fitted)


def compute_in_double(network: nn.Module, X: np.ndarray) -> np.ndarray:
    exact = copy.deepcopy(network).double().eval()
    with torch.no_grad():
        return exact(torch.tensor(X).double()).softmax(dim=1).numpy()


@given(n_rows=st.integers(1, 40), batch_size=st.integers(1, 50))
def test_a_sample_is_computed_as_alone(
    fitted: PlugMLPClassifier, n_rows: int, batch_size: int
) -> None:
    X, probe = draw_samples(n_rows), copy.deepcopy(fitted)
    alone = [probe.predict_proba(row[None])[0] for row in X]
    probe.net_.set_params(evaluation_rows=batch_size)
    np.testing.assert_allclose(probe.predict_proba(X), alone, atol=1e-12)


def test_few_samples_are_computed_in_double_precision(probe: PlugMLPClassifier) -> None:
    X = draw_samples(20)
    expected = compute_in_double(probe.net_.module_, X)
    np.testing.assert_allclose(probe.predict_proba(X), expected, atol=1e-12)


def test_many_samples_are_computed_as_few(probe: PlugMLPClassifier) -> None:
    X = draw_samples(MOST_EXACT_ROWS + 1)
    many, few = probe.predict_proba(X), probe.predict_proba(X[:-1])
    np.testing.assert_allclose(many[:-1], few, atol=1e-6)
    # These are in single precision.
    assert not np.array_equal(many[:-1], few)


def test_a_network_in_training_is_computed_as_in_evaluation(
    probe: PlugMLPClassifier,
) -> None:
    X = draw_samples(20)
    expected = probe.predict_proba(X)
    probe.net_.module_.train()
    np.testing.assert_allclose(probe.predict_proba(X), expected, atol=1e-12)


def test_computing_leaves_the_network_in_its_mode_and_precision(
    probe: PlugMLPClassifier,
) -> None:
    network = probe.net_.module_.train()
    state = copy.deepcopy(network.state_dict())
    probe.predict_proba(draw_samples(20))
    assert all(module.training for module in network.modules())
    for name, value in network.state_dict().items():
        assert value.dtype == state[name].dtype
        assert torch.equal(value, state[name])


def test_weights_are_those_of_now(probe: PlugMLPClassifier) -> None:
    X, network = draw_samples(20), probe.net_.module_
    before = probe.predict_proba(X)
    with torch.no_grad():
        for values in (*network.parameters(), *network.buffers()):
            if values.is_floating_point():
                values.mul_(1.5)
    after = probe.predict_proba(X)
    assert not np.allclose(after, before)
    np.testing.assert_allclose(after, compute_in_double(network, X), atol=1e-12)


def count_networks() -> int:
    gc.collect()
    return sum(type(each) is MLPNetwork for each in gc.get_objects())


def test_each_thread_keeps_one_copy_as_long_as_the_network_is_there() -> None:
    before, probe, X = count_networks(), fit_probe(), draw_samples(3)
    assert count_networks() == before + 1
    for _ in range(3):
        probe.predict_proba(X)
    assert count_networks() == before + 2
    with ThreadPoolExecutor(1) as thread:
        thread.submit(probe.predict_proba, X).result()
        assert count_networks() == before + 3
    del probe
    assert count_networks() == before
