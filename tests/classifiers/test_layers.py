import numpy as np
import pytest
import torch
from torch import Tensor

from plug_sklearn.classifiers._layers import (
    Dropout,
    Projection,
    Sharpness,
    Standardise,
    draw_kept,
)


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


def test_sharpness_scales_logits_outside_training() -> None:
    sharpness = Sharpness()
    logits = torch.randn(3, 2, generator=seed())
    assert torch.equal(sharpness.eval()(logits), logits)
    sharpness.factor.fill_(0.5)
    assert torch.equal(sharpness(logits), logits / 2)
    assert torch.equal(sharpness.train()(logits), logits)


def test_a_projection_is_a_linear_map_that_is_not_trained() -> None:
    projection = Projection(4, 2)
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
