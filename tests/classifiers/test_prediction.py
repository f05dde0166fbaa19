import copy
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from plug_sklearn.classifiers import MLPNetwork, initialise_parameters
from plug_sklearn.classifiers._prediction import (
    MOST_EXACT_ROWS,
    apply_in_batches,
    copy_in_double,
    softmax_last,
)

CPU = torch.device("cpu")


def draw_samples(n_rows: int) -> np.ndarray:
    rng = np.random.default_rng(n_rows)
    return rng.normal(size=(n_rows, 6)).astype(np.float32)


def build_network() -> MLPNetwork:
    network = MLPNetwork(
        6, 2, first=16, second=16, last=16, dropout=0.5, n_members=3, linear_path=True
    )
    initialise_parameters(network, torch.Generator().manual_seed(0))
    return network.eval()


def predict(network: MLPNetwork, X: np.ndarray, batch_size: int = 64) -> np.ndarray:
    return apply_in_batches(
        network, X, lambda module, x: softmax_last(module(x)), CPU, batch_size
    )


@given(n_rows=st.integers(1, 40), batch_size=st.integers(1, 50))
def test_a_sample_is_computed_as_alone(n_rows: int, batch_size: int) -> None:
    network, X = build_network(), draw_samples(n_rows)
    alone = [predict(network, row[None])[0] for row in X]
    np.testing.assert_allclose(predict(network, X, batch_size), alone, atol=1e-12)


def test_few_samples_are_computed_in_double_precision() -> None:
    network, X = build_network(), draw_samples(20)
    expected = copy.deepcopy(network).double()(torch.tensor(X).double()).softmax(1)
    np.testing.assert_allclose(predict(network, X), expected.detach(), atol=1e-12)


def test_many_samples_are_computed_as_few() -> None:
    network, X = build_network(), draw_samples(MOST_EXACT_ROWS + 1)
    np.testing.assert_allclose(
        predict(network, X)[:50], predict(network, X[:50]), atol=1e-6
    )


def test_a_network_in_training_is_computed_as_in_evaluation() -> None:
    network, X = build_network(), draw_samples(20)
    expected = predict(network, X)
    np.testing.assert_allclose(predict(network.train(), X), expected, atol=1e-12)


def test_computing_leaves_the_network_in_its_mode_and_precision() -> None:
    network = build_network().train()
    state = copy.deepcopy(network.state_dict())
    predict(network, draw_samples(20))
    assert all(module.training for module in network.modules())
    for name, value in network.state_dict().items():
        assert value.dtype == state[name].dtype
        assert torch.equal(value, state[name])


def make_network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).eval()


X = torch.linspace(-1, 1, 15, dtype=torch.float64).reshape(5, 3)


def test_copy_computes_what_the_network_does_in_double_precision() -> None:
    network = make_network()
    expected = deepcopy(network).double()(X)
    assert torch.equal(copy_in_double(network)(X), expected)
    assert {tensor.dtype for tensor in network.parameters()} == {torch.float32}


def test_copy_has_the_weights_of_now() -> None:
    network = make_network()
    copy_in_double(network)
    network[0].weight.data.fill_(0.5)
    network[1].running_mean.fill_(2)
    expected = deepcopy(network).double()(X)
    assert torch.equal(copy_in_double(network)(X), expected)


def test_each_thread_has_a_copy_of_its_own() -> None:
    network = make_network()
    mine = copy_in_double(network)
    assert copy_in_double(network) is mine
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(copy_in_double, network).result() is not mine


def test_copy_goes_with_the_network() -> None:
    network = make_network()
    copy = weakref.ref(copy_in_double(network))
    assert copy() is not None
    del network
    gc.collect()
    assert copy() is None
