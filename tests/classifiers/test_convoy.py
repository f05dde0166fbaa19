from itertools import compress

import numpy as np
import torch

from plug_sklearn import PlugMLPClassifier
from plug_sklearn.classifiers._classifiers import Training
from plug_sklearn.classifiers._convoy import Convoy, gather_convoy, join_modules
from plug_sklearn.classifiers._networks import MLPNetwork

N_ROWS, N_FEATURES = 60, 16


def draw_network(seed: int) -> MLPNetwork:
    network = MLPNetwork(
        N_FEATURES,
        2,
        first=16,
        second=16,
        last=16,
        dropout=0.0,
        n_members=3,
        linear_path=True,
    )
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    return network.eval()


def prepare(seed: int) -> Training:
    rng = np.random.default_rng(seed)
    y = np.arange(N_ROWS) % 2
    X = rng.normal(size=(N_ROWS, N_FEATURES)).astype(np.float32)
    probe = PlugMLPClassifier(width_cap=16, random_state=0, device="cpu")
    training = probe._prepare(X, y, sample_weight=None, groups=None, seeds=(1, 2))
    training.net.initialize()
    training.net.notify("on_train_begin", X=training.rows, y=None)
    return training


def train(convoy: Convoy, n_epochs: int) -> None:
    for _ in range(n_epochs):
        convoy.train_epoch()


def copy_weights(trainings: list[Training]) -> list[dict[str, torch.Tensor]]:
    return [
        {name: value.clone() for name, value in each.net.module_.state_dict().items()}
        for each in trainings
    ]


def test_a_joined_network_gives_the_logits_of_each() -> None:
    networks = [draw_network(seed) for seed in range(3)]
    x = torch.randn(5, 9, N_FEATURES, generator=torch.Generator().manual_seed(9))
    alone = [
        network.compute_logits(own)
        for network, own in zip(networks, x.chunk(3, dim=1), strict=True)
    ]
    joined = join_modules(networks).compute_logits(x)
    torch.testing.assert_close(joined, torch.cat(alone, dim=1))


def test_what_a_joined_network_learns_is_in_the_weights_of_each() -> None:
    networks = [draw_network(seed) for seed in range(2)]
    joined = join_modules(networks)
    with torch.no_grad():
        for parameter in joined.parameters():
            parameter.add_(1)
    for name, value in joined.named_parameters():
        own = [network.get_parameter(name) for network in networks]
        assert torch.equal(value, torch.cat(own))


def test_nets_that_go_on_take_the_steps_they_would_have_taken() -> None:
    runs = [True, False, True]
    staying = [prepare(seed) for seed in range(3)]
    train(gather_convoy(staying), 4)
    leaving = [prepare(seed) for seed in range(3)]
    convoy = gather_convoy(leaving)
    train(convoy, 2)
    train(convoy.go_on_with(runs), 2)
    expected = copy_weights(list(compress(staying, runs)))
    found = copy_weights(list(compress(leaving, runs)))
    for of_one, of_other in zip(expected, found, strict=True):
        for name, value in of_one.items():
            torch.testing.assert_close(of_other[name], value, msg=name)


def test_a_net_that_stops_is_left_as_it_was() -> None:
    trainings = [prepare(seed) for seed in range(2)]
    convoy = gather_convoy(trainings)
    train(convoy, 1)
    convoy.release(trainings[:1])
    before = copy_weights(trainings)
    train(convoy.go_on_with([False, True]), 1)
    stopped, running = copy_weights(trainings)
    assert all(torch.equal(before[0][name], stopped[name]) for name in stopped)
    assert not all(torch.equal(before[1][name], running[name]) for name in running)
