from math import exp, log

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from plug_sklearn.classifiers._layers import (
    FACTORS,
    SOFTNESS,
    Dropout,
    LayerProbes,
    LinearPath,
    MemberLinear,
    MemberNorm,
    Mixture,
    PrincipalComponents,
    Standardise,
    TemperatureScaling,
    average_members,
    draw_kept,
    weigh_mixture,
)

#: The code of rows without a class, which torch's cross-entropy ignores.
NO_CLASS = -100


def seed(value: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(value)


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


def test_temperature_scales_logits_outside_training() -> None:
    temperature = TemperatureScaling()
    logits = torch.randn(3, 2, generator=seed())
    assert torch.equal(temperature.eval()(logits), logits)
    temperature.factor.fill_(0.5)
    assert torch.equal(temperature(logits), logits / 2)
    assert torch.equal(temperature.train()(logits), logits)


def test_a_projection_is_a_linear_map_that_is_not_trained() -> None:
    projection = PrincipalComponents(4, 2)
    projection.basis.copy_(torch.arange(8.0).view(4, 2))
    assert projection(torch.eye(4)[:, None]).squeeze().tolist() == [
        [0, 1],
        [2, 3],
        [4, 5],
        [6, 7],
    ]
    assert not list(projection.parameters())


@pytest.mark.parametrize("p", [1e-9, 0.2, 0.5, 1 - 1e-9])
def test_units_are_kept_at_the_probability_asked_for(p: float) -> None:
    kept = draw_kept((200, 501), p, torch.device("cpu"), seed())
    # Five deviations of a mean of 100,200 draws.
    assert kept.float().mean().item() == pytest.approx(1 - p, abs=0.008)


def test_members_of_several_probes_get_the_same_masks() -> None:
    dropout = Dropout(0.5)
    dropout.n_probes = 3
    masks = dropout(torch.ones(20, 6, 8)).unflatten(1, (3, 2))
    assert masks.eq(0).any()
    assert masks.eq(masks[:, :1]).all()


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


def test_the_mean_of_sure_probabilities_is_finite() -> None:
    logits = torch.tensor([[[900.0, 0.0], [0.0, 900.0]]])
    assert average_members(logits).softmax(dim=1).tolist() == [[0.5, 0.5]]
