import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from plug_sklearn.classifiers import (
    CNNNetwork,
    CNNWidths,
    MLPNetwork,
    MLPWidths,
    count_cnn_parameters,
    count_mlp_parameters,
    size_cnn,
    size_cnn_by_budget,
    size_mlp,
    size_mlp_by_budget,
)

# (samples, features, classes) → (first, second, last), trainable parameters. By hand:
# d·f + f + 2f, f·s + s + 2s, s·s + s + 2s, s·s + s, s·l + l + 2l, l·c + c.
MLP_CASES = [
    ((100, 10, 2), (50, 25, 16), 650 + 1325 + 700 + 650 + 448 + 34),
    ((10, 10, 2), (16, 16, 16), 208 + 304 + 304 + 272 + 304 + 34),
    ((1270, 576, 2), (16, 16, 16), 9264 + 304 + 304 + 272 + 304 + 34),
    ((5000, 576, 2), (43, 21, 16), 24897 + 966 + 504 + 462 + 384 + 34),
    ((5000, 576, 5), (43, 21, 16), 24897 + 966 + 504 + 462 + 384 + 85),
    ((100000, 576, 2), (128, 64, 16), 74112 + 8384 + 4288 + 4160 + 1072 + 34),
    ((500, 3584, 2), (16, 16, 16), 57392 + 304 + 304 + 272 + 304 + 34),
    ((500, 43008, 2), (16, 16, 16), 688176 + 304 + 304 + 272 + 304 + 34),
    ((640, 100, 3), (32, 16, 16), 3296 + 560 + 304 + 272 + 304 + 51),
    ((399, 30, 2), (66, 33, 16), 2178 + 2277 + 1188 + 1122 + 576 + 34),
    ((1000, 50, 4), (100, 50, 16), 5300 + 5150 + 2650 + 2550 + 848 + 68),
    ((None, 20, 2), (32, 16, 16), 736 + 560 + 304 + 272 + 304 + 34),
]

# (samples, layers, parts, hidden size, classes) →
# (first, second, projection, head), trainable parameters. By hand: LayerNorm 2h;
# one part: 5·L·a + a + 2a, 3·a·b + b + 2b, b·p + p; more: k·5·L·a + a + 2a,
# a·b + b + 2b, b·p + p; head p·p + p, p·q + q, q·c + c.
CNN_CASES = [
    ((10, 1, 1, 8, 2), (8, 16, 32, 32), 16 + 64 + 432 + 544 + 2178),
    ((10, 12, 1, 8, 2), (8, 16, 32, 32), 16 + 504 + 432 + 544 + 2178),
    ((10, 12, 2, 8, 2), (8, 16, 32, 32), 16 + 984 + 176 + 544 + 2178),
    ((10, 12, 3, 8, 2), (8, 16, 32, 32), 16 + 1464 + 176 + 544 + 2178),
    ((10, 12, 4, 8, 3), (8, 16, 32, 32), 16 + 1464 + 176 + 544 + 2211),
    ((500, 28, 3, 64, 2), (15, 30, 32, 32), 128 + 6345 + 540 + 992 + 2178),
    ((1000, 28, 1, 64, 2), (22, 44, 44, 32), 128 + 3146 + 3036 + 1980 + 3486),
    ((1000, 28, 3, 64, 2), (22, 44, 44, 32), 128 + 9306 + 1100 + 1980 + 3486),
    ((3200, 6, 2, 16, 2), (40, 80, 80, 32), 32 + 2520 + 3440 + 6480 + 9138),
    ((100000, 6, 1, 16, 2), (64, 128, 128, 32), 32 + 2112 + 24960 + 16512 + 20706),
    ((None, 6, 3, 16, 2), (16, 32, 32, 32), 32 + 1488 + 608 + 1056 + 2178),
]


def count_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("case", "widths", "n_parameters"), MLP_CASES)
def test_mlp_has_the_widths_and_parameters_of_the_formula(
    case: tuple[int, int, int], widths: tuple[int, ...], n_parameters: int
) -> None:
    n_samples, n_features, n_classes = case
    sized = vars(size_mlp(n_samples, n_features))
    assert tuple(sized.values()) == widths
    network = MLPNetwork(n_features, n_classes, dropout=0.3, **sized)
    assert count_parameters(network) == n_parameters


@pytest.mark.parametrize(("case", "widths", "n_parameters"), CNN_CASES)
def test_cnn_has_the_widths_and_parameters_of_the_formula(
    case: tuple[int, int, int, int, int], widths: tuple[int, ...], n_parameters: int
) -> None:
    n_samples, n_layers, n_parts, hidden_size, n_classes = case
    sized = vars(size_cnn(n_samples))
    assert tuple(sized.values()) == widths
    network = CNNNetwork(
        n_layers, n_parts, hidden_size, n_classes, dropout=0.1, **sized
    )
    assert count_parameters(network) == n_parameters


@given(
    n_samples=st.integers(1, 10**7),
    n_features=st.integers(1, 10**5),
    width_cap=st.integers(16, 1024),
)
def test_mlp_widths_stay_within_their_bounds(
    n_samples: int, n_features: int, width_cap: int
) -> None:
    widths = size_mlp(n_samples, n_features, width_cap=width_cap)
    assert 16 <= widths.last <= widths.second <= widths.first <= width_cap


@given(n_samples=st.integers(1, 10**7), width_cap=st.integers(8, 1024))
def test_more_samples_never_make_a_cnn_narrower(n_samples: int, width_cap: int) -> None:
    fewer = size_cnn(n_samples, width_cap=width_cap)
    more = size_cnn(n_samples + 1, width_cap=width_cap)
    assert 8 <= fewer.first <= more.first <= width_cap


def test_out_floor_is_the_fewest_units_before_the_logits() -> None:
    assert size_mlp(100, 10, out_floor=24).last == 24


def test_proj_mult_is_the_projection_in_channels() -> None:
    assert size_cnn(1000, proj_mult=4).projection == 88


def count_trained(network: nn.Module) -> int:
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
    widths, n_kept = size_mlp_by_budget(
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
    assert count_trained(network) == expected


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
    widths, n_kept = size_cnn_by_budget(
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
    assert count_trained(network) == expected


def test_a_budget_that_the_classes_exceed_gives_the_smallest_network() -> None:
    widths, n_kept = size_mlp_by_budget(50, 64, 200, n_members=5)
    assert (widths, n_kept) == (MLPWidths(1, 1, 1), 1)
