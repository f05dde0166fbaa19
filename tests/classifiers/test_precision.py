import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy

import torch
from torch import nn

from plug_sklearn.classifiers._precision import copy_in_double


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
