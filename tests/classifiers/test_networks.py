from math import sqrt

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from plug_sklearn.classifiers._networks import (
    CNNNetwork,
    Dropout,
    MLPNetwork,
    Standardise,
    initialise_parameters,
)

WIDTHS = {"first": 8, "second": 16, "projection": 32, "head": 32}


def seed(value: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(value)


def build_mlp(dropout: float = 0.0) -> MLPNetwork:
    network = MLPNetwork(6, 3, first=9, second=7, last=5, dropout=dropout)
    initialise_parameters(network, seed())
    return network


def build_cnn(n_layers: int, n_parts: int) -> CNNNetwork:
    network = CNNNetwork(n_layers, n_parts, 10, 2, dropout=0.0, **WIDTHS)
    initialise_parameters(network, seed())
    return network.eval()


def apply_block(x: Tensor, linear: nn.Linear, norm: nn.BatchNorm1d) -> Tensor:
    hidden = x @ linear.weight.T + linear.bias
    hidden = (hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + norm.eps).sqrt()
    return (hidden * norm.weight + norm.bias).clamp(min=0)


def test_mlp_computes_two_blocks_a_residual_block_and_the_logits() -> None:
    network = build_mlp()
    linears = [m for m in network.modules() if isinstance(m, nn.Linear)]
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm1d)]
    assert [(m.in_features, m.out_features) for m in linears] == [
        (6, 9),
        (9, 7),
        (7, 7),
        (7, 7),
        (7, 5),
        (5, 3),
    ]
    x = torch.randn(20, 6, generator=seed(1))
    hidden = apply_block(apply_block(x, linears[0], norms[0]), linears[1], norms[1])
    hidden = hidden + linears[3](apply_block(hidden, linears[2], norms[2]))
    expected = linears[5](apply_block(hidden, linears[4], norms[3]))
    torch.testing.assert_close(network(x), expected)


def test_mlp_flattens_samples_of_more_axes() -> None:
    network = build_mlp().eval()
    x = torch.randn(4, 3, 2, generator=seed())
    torch.testing.assert_close(network(x), network(x.reshape(4, 6)))


@pytest.mark.parametrize("n_parts", [1, 2, 3, 4])
def test_cnn_reads_flat_samples_as_layers_parts_and_units(n_parts: int) -> None:
    network = build_cnn(4, n_parts)
    x = torch.randn(3, 4, n_parts, 10, generator=seed())
    logits, z = network(x)
    assert logits.shape == (3, 2)
    assert z.shape == (3, 32)
    torch.testing.assert_close(network(x.flatten(start_dim=1))[0], logits)


@pytest.mark.parametrize(("n_parts", "kernel"), [(2, (2, 5)), (3, (3, 5)), (5, (3, 5))])
def test_cnn_kernel_spans_three_parts_at_most(
    n_parts: int, kernel: tuple[int, int]
) -> None:
    first = build_cnn(4, n_parts).encoder[0]
    assert isinstance(first, nn.Conv2d)
    assert first.kernel_size == kernel
    assert first.padding == (kernel[0] // 2, 2)


def test_cnn_of_one_part_convolves_units_alone() -> None:
    kernels = [
        m.kernel_size for m in build_cnn(4, 1).modules() if isinstance(m, nn.Conv1d)
    ]
    assert kernels == [(5,), (3,), (1,)]


def test_projection_is_the_mean_over_positions_of_the_last_convolution() -> None:
    network = build_cnn(4, 3)
    x = torch.randn(5, 4, 3, 10, generator=seed())
    x_normed = (x - x.mean(-1, keepdim=True)) / (
        x.var(-1, correction=0, keepdim=True) + 1e-5
    ).sqrt()
    maps = network.encoder[:8](x_normed)
    torch.testing.assert_close(network.project(x), maps.mean(dim=(2, 3)))


def test_cnn_ignores_the_scale_of_hidden_states() -> None:
    network = build_cnn(4, 3)
    x = torch.randn(5, 4, 3, 10, generator=seed())
    torch.testing.assert_close(
        network(1000 * x + 5)[0], network(x)[0], atol=1e-3, rtol=0
    )


def test_dropout_is_the_identity_outside_training() -> None:
    x = torch.ones(3, 4)
    assert Dropout(0.5).eval()(x) is x


def test_dropout_keeps_the_mean_and_zeroes_its_share() -> None:
    dropout = Dropout(0.3)
    dropout.generator = seed()
    out = dropout(torch.ones(200, 500))
    # 100,000 draws: four standard errors of the share are 0.006.
    assert (out == 0).double().mean().item() == pytest.approx(0.3, abs=0.006)
    assert out.unique().tolist() == pytest.approx([0, 1 / 0.7])


def test_dropout_draws_from_its_generator_alone() -> None:
    before = torch.get_rng_state()
    outs = []
    for _ in range(2):
        dropout = Dropout(0.5)
        dropout.generator = seed(3)
        outs.append(dropout(torch.ones(50, 50)))
    assert torch.equal(*outs)
    assert torch.equal(torch.get_rng_state(), before)


def test_initial_parameters_are_uniform_within_the_root_of_the_fan_in() -> None:
    network = MLPNetwork(400, 2, first=100, second=16, last=16, dropout=0.0)
    initialise_parameters(network, seed())
    linear = next(m for m in network.modules() if isinstance(m, nn.Linear))
    scaled = np.sort(linear.weight.detach().numpy().ravel()) * sqrt(400)
    # Kolmogorov's distance from the uniform law, at odds of 1 in 1,000 for n draws.
    uniform = np.linspace(-1, 1, len(scaled))
    assert np.abs(scaled - uniform).max() / 2 < 1.95 / sqrt(len(scaled))


def test_initialisation_overwrites_memory_of_any_content() -> None:
    with torch.device("meta"):
        empty = CNNNetwork(2, 3, 4, 2, dropout=0.0, **WIDTHS)
    empty = empty.to_empty(device="cpu")
    for value in empty.state_dict().values():
        value.fill_(7)
    initialise_parameters(empty, seed())
    fresh = CNNNetwork(2, 3, 4, 2, dropout=0.0, **WIDTHS)
    initialise_parameters(fresh, seed())
    for one, other in zip(
        empty.state_dict().values(), fresh.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)


def test_class_shares_are_the_probabilities_of_an_input_of_no_effect() -> None:
    network = build_mlp()
    initialise_parameters(network, seed(), class_shares=[0.7, 0.2, 0.1])
    with torch.no_grad():
        network.output.weight.zero_()
    probabilities = network.eval()(torch.ones(1, 6)).softmax(dim=1)
    assert probabilities[0].tolist() == pytest.approx([0.7, 0.2, 0.1])


def learn(x: Tensor, weight: Tensor) -> Standardise:
    standardise = Standardise(tuple(x.shape[1:]))
    standardise.learn(x, weight)
    return standardise


def test_units_are_standardised_by_their_weighted_mean_and_deviation() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(5, [[1e-3, 1, 1e6]], size=(30, 3)).astype(np.float32)
    weight = rng.integers(0, 4, size=30).astype(np.float32)
    repeated = x.repeat(weight.astype(int), axis=0).astype(float)
    expected = (x - repeated.mean(0)) / repeated.std(0)
    found = learn(torch.tensor(x), torch.tensor(weight))(torch.tensor(x))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-3)


def test_more_units_than_are_converted_at_once_are_all_standardised() -> None:
    x = torch.randn(9, 3, 700, generator=seed())
    found = learn(x, torch.ones(9))(x)
    torch.testing.assert_close(found.mean(0), torch.zeros(3, 700), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.std(0, correction=0), torch.ones(3, 700))


@pytest.mark.parametrize("value", [0.0, 0.1, 1e30, 1e-45])
def test_a_unit_constant_where_there_is_weight_becomes_zero(value: float) -> None:
    x = torch.full((7, 1), value)
    x[3] = 1.0
    weight = torch.tensor([3.0, 1, 1, 0, 7, 1, 1])
    assert learn(x, weight)(x).tolist() == [[0.0]] * 7


def test_statistics_are_neither_trained_nor_lost() -> None:
    standardise = learn(torch.randn(9, 4, generator=seed()), torch.ones(9))
    assert not list(standardise.parameters())
    assert set(standardise.state_dict()) == {"mean", "scale"}
