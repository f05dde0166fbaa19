from collections.abc import Callable
from math import sqrt

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from plug_sklearn.classifiers import (
    CNNNetwork,
    MLPNetwork,
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


def apply_block(x: Tensor, linear: nn.Module, norm: nn.Module) -> Tensor:
    hidden = x @ linear.weight[0] + linear.bias[0]
    hidden = (hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + norm.eps).sqrt()
    return (hidden * norm.weight + norm.bias).clamp(min=0)


def test_mlp_computes_two_blocks_a_residual_block_and_the_logits() -> None:
    network = build_mlp()
    linears, norms = (
        [m for m in network.modules() if type(m).__name__ == name]
        for name in ("MemberLinear", "MemberNorm")
    )
    assert [tuple(m.weight.shape[1:]) for m in linears] == [
        (6, 9),
        (9, 7),
        (7, 7),
        (7, 7),
        (7, 5),
        (5, 3),
    ]
    x = torch.randn(20, 6, generator=seed(1))
    hidden = apply_block(apply_block(x, linears[0], norms[0]), linears[1], norms[1])
    within = apply_block(hidden, linears[2], norms[2])
    hidden = hidden + within @ linears[3].weight[0] + linears[3].bias[0]
    last = apply_block(hidden, linears[4], norms[3])
    expected = last @ linears[5].weight[0] + linears[5].bias[0]
    torch.testing.assert_close(network(x), expected)


def test_mlp_flattens_samples_of_more_axes() -> None:
    network = build_mlp().eval()
    x = torch.randn(4, 3, 2, generator=seed())
    torch.testing.assert_close(network(x), network(x.reshape(4, 6)))


def test_linear_path_adds_a_linear_function_of_the_standardised_features() -> None:
    network = MLPNetwork(6, 3, first=9, second=7, last=5, dropout=0.0, linear_path=True)
    initialise_parameters(network, seed())
    network.eval()
    x = torch.randn(20, 6, generator=seed(1))
    network.standardise.learn(x, torch.ones(20))
    before = network(x)
    with torch.no_grad():
        network.linear.weight.normal_(generator=seed(2))
    expected = before + network.standardise(x) @ network.linear.weight[0].T
    torch.testing.assert_close(network(x), expected)


def test_dropped_features_reach_neither_the_blocks_nor_the_linear_path() -> None:
    network = MLPNetwork(
        6,
        3,
        first=9,
        second=7,
        last=5,
        dropout=0.0,
        linear_path=True,
        input_dropout=1 - 1e-9,
    )
    initialise_parameters(network, seed())
    nn.init.ones_(network.linear.weight)
    out = network(torch.randn(20, 6, generator=seed(1)))
    torch.testing.assert_close(out, out[:1].expand(20, 3))


MEMBERS = [
    lambda m: MLPNetwork(
        12, 3, first=9, second=7, last=5, dropout=0.0, n_members=m, linear_path=True
    ),
    *(
        lambda m, parts=parts, over=over: CNNNetwork(
            12 // parts // 2,
            parts,
            2,
            3,
            dropout=0.0,
            n_members=m,
            linear_path=True,
            conv_over=over,
            **WIDTHS,
        )
        for parts in (1, 2)
        for over in ("units", "layers")
    ),
]


@pytest.mark.parametrize("build", MEMBERS)
def test_a_member_computes_what_a_network_alone_does(
    build: Callable[[int], MLPNetwork | CNNNetwork],
) -> None:
    network = build(3)
    initialise_parameters(network, seed())
    x = torch.randn(10, 3, 12, generator=seed(1))
    together = first_output(network(x))
    for member in range(3):
        alone = build(1)
        state = alone.state_dict()
        for name, value in network.state_dict().items():
            shared = value.shape == state[name].shape
            state[name] = value if shared else value.chunk(3)[member]
        alone.load_state_dict(state)
        # Normalised by each batch, as in training.
        torch.testing.assert_close(
            first_output(alone.train()(x[:, member])), together[:, member]
        )


@pytest.mark.parametrize("build", MEMBERS)
def test_samples_of_all_members_get_the_mean_of_their_probabilities(
    build: Callable[[int], MLPNetwork | CNNNetwork],
) -> None:
    network = build(3)
    initialise_parameters(network, seed())
    network.eval()
    x = torch.randn(10, 12, generator=seed(1))
    each = first_output(network(x[:, None].expand(-1, 3, -1))).softmax(dim=2)
    shared = first_output(network(x)).softmax(dim=1)
    torch.testing.assert_close(shared, each.mean(dim=1))


def first_output(outputs: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    return outputs[0] if isinstance(outputs, tuple) else outputs


@pytest.mark.parametrize("n_parts", [1, 2, 3, 4])
def test_cnn_reads_flat_samples_as_layers_parts_and_units(n_parts: int) -> None:
    network = build_cnn(4, n_parts)
    x = torch.randn(3, 4, n_parts, 10, generator=seed())
    logits, z = network(x)
    assert logits.shape == (3, 2)
    assert z.shape == (3, 1, 32)
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


def test_initial_parameters_are_uniform_within_the_root_of_the_fan_in() -> None:
    network = MLPNetwork(400, 2, first=100, second=16, last=16, dropout=0.0)
    initialise_parameters(network, seed())
    linear = next(m for m in network.modules() if type(m).__name__ == "MemberLinear")
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
