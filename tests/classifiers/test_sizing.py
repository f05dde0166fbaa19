import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from plug_sklearn.classifiers._cnn_network import CNNNetwork
from plug_sklearn.classifiers._networks import MLPNetwork
from plug_sklearn.classifiers._sizing import (
    size_cnn,
    size_mlp,
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
