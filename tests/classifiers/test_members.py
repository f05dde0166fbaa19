import torch
from torch import nn

from plug_sklearn.classifiers._members import LinearPath, MemberLinear, MemberNorm


def seed(value: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(value)


def draw_linear() -> MemberLinear:
    linear = MemberLinear(3, 4, 2)
    linear.draw(seed())
    return linear


def test_each_member_has_a_linear_layer_of_its_own() -> None:
    linear = draw_linear()
    x = torch.randn(5, 3, 4, generator=seed(1))
    expected = [x[:, k] @ linear.weight[k] + linear.bias[k] for k in range(3)]
    torch.testing.assert_close(linear(x), torch.stack(expected, dim=1))


def test_samples_of_all_members_are_given_to_each() -> None:
    linear = draw_linear()
    x = torch.randn(5, 1, 4, generator=seed(1))
    torch.testing.assert_close(linear(x), linear(x.repeat(1, 3, 1)))


def test_a_linear_path_begins_as_zero() -> None:
    path = LinearPath(3, 4, 2)
    path.draw(seed())
    assert not path(torch.ones(5, 3, 4)).any()


def test_units_of_each_member_are_normalised_alone() -> None:
    norm = MemberNorm(3, 2)
    norm.reset_parameters()
    x = torch.randn(6, 3, 2, generator=seed())
    alone = nn.BatchNorm1d(2)
    expected = torch.stack([alone(x[:, k]) for k in range(3)], dim=1)
    torch.testing.assert_close(norm(x), expected)
