import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from plug_sklearn.classifiers._budget import (
    count_cnn_parameters,
    count_mlp_parameters,
    fit_cnn_to_budget,
    fit_mlp_to_budget,
)
from plug_sklearn.classifiers._cnn_network import CNNNetwork
from plug_sklearn.classifiers._networks import MLPNetwork
from plug_sklearn.classifiers._sizing import CNNWidths, MLPWidths


def count_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@settings(max_examples=200)
@given(
    n_samples=st.integers(50, 100_000),
    n_features=st.integers(64, 50_000),
    n_members=st.integers(1, 5),
    linear_path=st.booleans(),
)
def test_mlp_fitted_to_a_budget_is_within_a_tenth_of_it(
    n_samples: int, n_features: int, n_members: int, linear_path: bool
) -> None:
    widths, n_kept = fit_mlp_to_budget(
        n_samples, n_features, 2, n_members=n_members, linear_path=linear_path
    )
    count = count_mlp_parameters(n_kept, 2, widths, linear_path=linear_path)
    assert n_members * count == pytest.approx(5 * n_samples, rel=0.1)
    assert 1 <= n_kept <= min(n_features, n_samples - 1)


@given(
    n_features=st.integers(1, 20),
    n_classes=st.integers(2, 6),
    widths=st.tuples(*[st.integers(1, 9)] * 3),
    linear_path=st.booleans(),
    n_members=st.integers(1, 3),
)
def test_mlp_parameters_are_counted_as_the_network_has_them(
    n_features: int,
    n_classes: int,
    widths: tuple[int, int, int],
    linear_path: bool,
    n_members: int,
) -> None:
    sized = MLPWidths(*widths)
    with torch.device("meta"):
        network = MLPNetwork(
            n_features,
            n_classes,
            dropout=0.0,
            n_members=n_members,
            linear_path=linear_path,
            **vars(sized),
        )
    expected = n_members * count_mlp_parameters(
        n_features, n_classes, sized, linear_path=linear_path
    )
    assert count_parameters(network) == expected


@settings(max_examples=200)
@given(
    n_samples=st.integers(50, 100_000) | st.integers(50, 500),
    n_channels=st.integers(64, 50_000),
    n_members=st.integers(1, 5),
    n_positions=st.sampled_from([0, 12, 30]),
    kernels=st.sampled_from([(3, 3), (5, 3), (15, 1)]),
)
def test_cnn_fitted_to_a_budget_is_within_a_tenth_unless_the_smallest_exceeds_it(
    n_samples: int,
    n_channels: int,
    n_members: int,
    n_positions: int,
    kernels: tuple[int, int],
) -> None:
    widths, n_kept = fit_cnn_to_budget(
        n_samples,
        n_channels,
        2,
        kernels=kernels,
        n_positions=n_positions,
        n_members=n_members,
    )
    count, smallest = (
        count_cnn_parameters(kept, 2, sized, kernels=kernels, n_positions=n_positions)
        for kept, sized in ((n_kept, widths), (1, CNNWidths(1, 1, 1, 1)))
    )
    if n_members * smallest > 5 * n_samples:
        assert count == smallest
    else:
        assert n_members * count == pytest.approx(5 * n_samples, rel=0.1)
    assert 1 <= n_kept <= n_channels


def test_the_smallest_cnn_has_22_parameters_and_its_linear_function() -> None:
    smallest = CNNWidths(1, 1, 1, 1)
    assert count_cnn_parameters(1, 2, smallest, kernels=(3, 3)) == 22
    with_path = count_cnn_parameters(1, 2, smallest, kernels=(3, 3), n_positions=30)
    assert with_path == 22 + 2 * 30 + 2


@pytest.mark.parametrize("n_members", [1, 3])
@pytest.mark.parametrize("linear_path", [False, True])
@pytest.mark.parametrize(
    ("conv_over", "n_parts", "kernels", "n_channels", "n_positions"),
    [
        ("layers", 1, (1, 3), 7, 4),
        ("layers", 3, (1, 3), 21, 4),
        ("units", 1, (5, 3), 4, 7),
        ("units", 2, (10, 1), 4, 14),
        ("units", 3, (15, 1), 4, 21),
    ],
)
def test_cnn_parameters_are_counted_as_the_network_has_them(
    conv_over: str,
    n_parts: int,
    kernels: tuple[int, int],
    n_channels: int,
    n_positions: int,
    linear_path: bool,
    n_members: int,
) -> None:
    widths = CNNWidths(2, 4, 5, 3)
    with torch.device("meta"):
        network = CNNNetwork(
            4,
            n_parts,
            7,
            2,
            dropout=0.0,
            normalise=False,
            conv_over=conv_over,
            linear_path=linear_path,
            n_members=n_members,
            **vars(widths),
        )
    expected = n_members * count_cnn_parameters(
        n_channels,
        2,
        widths,
        kernels=kernels,
        n_positions=n_positions if linear_path else 0,
    )
    assert count_parameters(network) == expected


def test_a_budget_that_the_classes_exceed_gives_the_smallest_network() -> None:
    widths, n_kept = fit_mlp_to_budget(50, 64, 200, n_members=5)
    assert (widths, n_kept) == (MLPWidths(1, 1, 1), 1)
