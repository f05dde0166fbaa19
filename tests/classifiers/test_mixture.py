from math import exp, log

import pytest
import torch
from torch import Tensor, nn

from plug_sklearn.classifiers._mixture import (
    FACTORS,
    SOFTNESS,
    LayerProbes,
    Mixture,
    weigh_mixture,
)
from plug_sklearn.classifiers._rows import NO_CLASS


def seed(value: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(value)


def build_probes() -> LayerProbes:
    probes = LayerProbes(3, 4, 5, 2)
    for parameter in probes.parameters():
        torch.nn.init.normal_(parameter, generator=seed())
    return probes


def test_each_layer_of_each_member_has_a_linear_probe() -> None:
    probes = build_probes()
    x = torch.randn(6, 3, 4, 5, generator=seed(1))
    found = probes(x)
    assert found.shape == (6, 3, 4, 2)
    for member in range(3):
        for layer in range(4):
            torch.testing.assert_close(
                found[:, member, layer],
                x[:, member, layer] @ probes.weight[member, :, layer]
                + probes.bias[member],
            )


def test_samples_of_all_members_are_given_to_the_probes_of_each() -> None:
    probes = build_probes()
    x = torch.randn(6, 1, 4, 5, generator=seed(1))
    torch.testing.assert_close(probes(x), probes(x.repeat(1, 3, 1, 1)))


def test_probes_begin_as_zero() -> None:
    probes = build_probes()
    probes.draw(seed())
    assert not probes(torch.ones(6, 3, 4, 5)).any()


def build_mixture() -> Mixture:
    mixture = Mixture(3)
    mixture.reset_parameters()
    return mixture


def test_classifiers_weigh_the_same_to_begin_with() -> None:
    logits = torch.randn(6, 2, 3, 4, generator=seed())
    torch.testing.assert_close(build_mixture()(logits), logits.mean(dim=2))


def weigh_in_plain_python(
    logits: Tensor, codes: list[int], weights: list[float]
) -> list[float]:
    exponents = []
    for k in range(logits.shape[1]):
        sums = []
        for factor in FACTORS:
            rows = (logits[:, k] * factor).tolist()
            sums.append(
                sum(
                    weight * (log(sum(exp(value) for value in row)) - row[code])
                    for row, code, weight in zip(rows, codes, weights, strict=True)
                    if code != NO_CLASS
                )
            )
        exponents.append(exp(-min(sums) / SOFTNESS))
    return [value / sum(exponents) for value in exponents]


def test_weights_fall_exponentially_with_the_loss_at_the_best_factor() -> None:
    logits = torch.randn(20, 3, 4, generator=seed(), dtype=torch.float64)
    codes = [row % 4 if row % 5 else NO_CLASS for row in range(20)]
    weights = torch.rand(20, generator=seed(1), dtype=torch.float64)
    mixture = build_mixture()
    mixture.learn(logits, torch.tensor(codes), weights)
    expected = weigh_in_plain_python(logits, codes, weights.tolist())
    assert mixture.weight.tolist() == pytest.approx(expected, rel=1e-5)


def test_a_row_of_weight_two_weighs_as_two_rows() -> None:
    logits = torch.randn(9, 3, 2, generator=seed())
    codes = torch.arange(9) % 2
    weights = torch.ones(9)
    weights[4] = 2
    once, twice = build_mixture(), build_mixture()
    once.learn(logits, codes, weights)
    again = [*range(9), 4]
    twice.learn(logits[again], codes[again], torch.ones(10))
    torch.testing.assert_close(once.weight, twice.weight)


def test_a_classifier_that_is_right_has_all_the_weight_of_many_rows() -> None:
    codes = torch.arange(400) % 2
    logits = torch.randn(400, 3, 2, generator=seed())
    logits[:, 1, 1] += 4.0 * codes
    mixture = build_mixture()
    mixture.learn(logits, codes, torch.ones(400))
    assert mixture.weight[1] > 0.99
    torch.testing.assert_close(mixture.weight.sum(), torch.tensor(1.0))


def test_weights_are_neither_trained_nor_lost() -> None:
    mixture = build_mixture()
    assert not list(mixture.parameters())
    assert set(mixture.state_dict()) == {"weight"}


class Echo(nn.Module):
    """Gives samples (n, members or 1, n_classifiers, 2) as logits of two members."""

    def forward(self, x: Tensor) -> tuple[None, None, Tensor]:
        return None, None, x.expand(-1, 2, -1, -1)


def test_rows_of_each_member_weigh_the_mixture_from_all_batches() -> None:
    x = torch.randn(8, 2, 3, 2, generator=seed())
    codes = torch.randint(2, (8, 2), generator=seed(1))
    weights = torch.rand(8, 2, generator=seed(2))
    found, expected = build_mixture(), build_mixture()
    batches = zip(*(each.split(3) for each in (x, codes, weights)), strict=True)
    weigh_mixture(Echo(), found, [(own, (c, w)) for own, c, w in batches])
    expected.learn(x.flatten(end_dim=1), codes.flatten(), weights.flatten())
    torch.testing.assert_close(found.weight, expected.weight)


def test_a_row_that_all_members_predict_counts_once_in_all() -> None:
    x = torch.randn(8, 1, 3, 2, generator=seed())
    codes = torch.randint(2, (8,), generator=seed(1))
    weights = torch.rand(8, generator=seed(2))
    found, expected = build_mixture(), build_mixture()
    weigh_mixture(Echo(), found, [(x, (codes, weights))])
    expected.learn(x[:, 0], codes, weights)
    torch.testing.assert_close(found.weight, expected.weight)
