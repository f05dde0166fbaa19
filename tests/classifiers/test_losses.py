from math import exp, log, sqrt

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import log_loss

from plug_sklearn.classifiers._losses import (
    ProbeLoss,
    contrast_by_class,
    find_inverse_temperature,
)

#: The code of rows without a class, which torch's cross-entropy ignores.
NO_CLASS = -100


def contrast_in_plain_python(
    z: list[list[float]], codes: list[int], weights: list[float], temperature: float
) -> float:
    """Khosla et al. 2020, equation 2, summed over anchors and divided by the rows."""
    unit = []
    for row in z:
        length = sqrt(sum(value**2 for value in row))
        unit.append([value / length for value in row])
    total = 0.0
    for i in range(len(z)):
        others = [a for a in range(len(z)) if a != i]
        positives = [p for p in others if codes[p] == codes[i]]
        if not positives:
            continue
        similar = {
            a: sum(x * y for x, y in zip(unit[i], unit[a], strict=True)) / temperature
            for a in others
        }
        denominator = sum(exp(similar[a]) for a in others)
        terms = [log(exp(similar[p]) / denominator) for p in positives]
        total += -weights[i] * sum(terms) / len(positives)
    return total / len(z)


@given(
    codes=st.lists(st.integers(0, 3), min_size=2, max_size=12),
    temperature=st.sampled_from([0.07, 0.5, 1.0]),
    seed=st.integers(0, 1000),
)
def test_contrast_is_the_papers_formula(
    codes: list[int], temperature: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(len(codes), 5, generator=generator, dtype=torch.float64)
    weights = torch.rand(len(codes), generator=generator, dtype=torch.float64)
    expected = contrast_in_plain_python(
        z.tolist(), codes, weights.tolist(), temperature
    )
    found = contrast_by_class(z, torch.tensor(codes), weights, temperature)
    assert found.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_contrast_without_a_positive_is_zero_with_zero_gradient() -> None:
    z = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    z.requires_grad_()
    loss = contrast_by_class(z, torch.tensor([0, 1, 2]))
    loss.backward()
    assert loss.item() == 0
    assert z.grad is not None
    assert not z.grad.any()


def test_contrast_of_projections_of_zero_is_finite() -> None:
    z = torch.zeros(4, 3, requires_grad=True)
    loss = contrast_by_class(z, torch.tensor([0, 0, 1, 1]))
    loss.backward()
    assert loss.item() == pytest.approx(log(3))
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_loss_is_the_weighted_cross_entropy_over_the_rows() -> None:
    logits = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    targets = torch.tensor([0, 0, 0]), torch.tensor([1.0, 0.5, 0.0])
    expected = (log(2) + 0.5 * log(1 + exp(-2))) / 3
    assert ProbeLoss()(logits, targets).item() == pytest.approx(expected)


def test_loss_of_projections_adds_the_weighted_contrast() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, z = (
        torch.randn(6, 2, generator=generator),
        torch.randn(6, 4, generator=generator),
    )
    targets = torch.tensor([0, 1, 0, 1, 0, 1]), torch.rand(6, generator=generator)
    plain = ProbeLoss()((logits, z), targets)
    loss = ProbeLoss(contrastive_weight=0.5, temperature=0.2)((logits, z), targets)
    contrast = contrast_by_class(z, *targets, temperature=0.2)
    torch.testing.assert_close(loss, plain + 0.5 * contrast)


def test_contrast_of_members_is_the_mean_of_theirs_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(7, 3, 4, generator=generator)
    codes = torch.randint(2, (7, 3), generator=generator)
    weights = torch.rand(7, 3, generator=generator)
    alone = [
        contrast_by_class(z[:, k], codes[:, k], weights[:, k]).item() for k in range(3)
    ]
    together = contrast_by_class(z, codes, weights).item()
    assert together == pytest.approx(sum(alone) / 3)


def test_rows_without_a_class_count_in_no_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 2, 3, generator=generator)
    z = torch.randn(5, 2, 4, generator=generator)
    codes = torch.tensor([[0, 1], [0, 1], [1, 1], [1, 0], [NO_CLASS, 0]])
    weights = torch.ones(5, 2).masked_fill(codes == NO_CLASS, 0)
    loss = ProbeLoss(contrastive_weight=1.0)
    changed = logits.clone(), z.clone()
    changed[0][4, 0], changed[1][4, 0] = 9, 9
    expected = loss((logits, z), (codes, weights))
    torch.testing.assert_close(loss(changed, (codes, weights)), expected)


def test_monitored_loss_has_no_contrast() -> None:
    logits, z = torch.zeros(4, 2), torch.eye(4)
    targets = torch.tensor([0, 1, 0, 1]), torch.ones(4)
    loss = ProbeLoss(contrastive_weight=1.0).eval()
    assert loss((logits, z), targets).item() == pytest.approx(log(2))


def test_classifiers_of_a_mixture_are_trained_each_by_a_loss_of_its_own() -> None:
    generator = torch.Generator().manual_seed(0)
    mixed, z = torch.zeros(6, 2, 3), torch.ones(6, 2, 4)
    each = torch.randn(6, 2, 5, 3, generator=generator)
    codes = torch.randint(3, (6, 2), generator=generator)
    weights = torch.rand(6, 2, generator=generator)
    alone = [
        ProbeLoss()(each[:, :, number].contiguous(), (codes, weights)).item()
        for number in range(5)
    ]
    found = ProbeLoss()((mixed, z, each), (codes, weights)).item()
    assert found == pytest.approx((alone[4] + sum(alone[:4]) / 4) / 2, rel=1e-6)


def test_a_mixture_is_validated_by_the_loss_of_its_logits() -> None:
    mixed = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(6) % 3, torch.ones(6)
    outputs = mixed, torch.ones(6, 1, 4), torch.zeros(6, 1, 5, 3)
    assert ProbeLoss().eval()(outputs, targets) == ProbeLoss()(mixed, targets)


RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(4000, 3))
CODES = np.array([RNG.choice(3, p=np.exp(row) / np.exp(row).sum()) for row in LOGITS])


def find(factor: float, weights: np.ndarray | None = None) -> float:
    weights = np.ones(4000) if weights is None else weights
    return find_inverse_temperature(
        torch.tensor(LOGITS / factor), torch.tensor(CODES), torch.tensor(weights)
    )


@pytest.mark.parametrize("factor", [0.3, 0.6, 1.0, 2.0, 4.0])
def test_logits_that_are_too_sure_or_not_sure_enough_are_scaled(factor: float) -> None:
    assert find(factor) == pytest.approx(factor, rel=0.1)


def test_the_factor_has_the_lowest_loss() -> None:
    def measure_loss(factor: float) -> float:
        scaled = np.exp(LOGITS / 0.5 * factor)
        return float(log_loss(CODES, scaled / scaled.sum(axis=1, keepdims=True)))

    found = find(0.5)
    nearby = min(measure_loss(0.98 * found), measure_loss(1.02 * found))
    assert measure_loss(found) < nearby


def test_rows_without_weight_or_class_count_in_nothing() -> None:
    weights = np.ones(4000)
    weights[:2000] = 0
    codes = torch.tensor(CODES)
    codes[:2000] = -100
    logits = torch.tensor(LOGITS)
    alone = find_inverse_temperature(logits[2000:], codes[2000:], torch.ones(2000))
    assert find(1.0, weights) == pytest.approx(alone, abs=1e-3)
    with_none = find_inverse_temperature(logits, codes, torch.ones(4000))
    assert with_none == pytest.approx(alone, abs=1e-3)


@pytest.mark.parametrize("is_told_apart", [True, False])
def test_few_rows_do_not_make_it_sure_or_unsure_without_end(
    is_told_apart: bool,
) -> None:
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    codes = torch.tensor([0, 1] if is_told_apart else [1, 0])
    found = find_inverse_temperature(logits, codes, torch.ones(2))
    assert 0.6 < found < 1.5
    assert (found > 1) == is_told_apart


@pytest.mark.parametrize("scale", [0.5, 3.0])
@pytest.mark.parametrize("is_prior_two_sided", [True, False])
def test_the_factor_is_the_most_probable_with_a_log_normal_prior(
    scale: float, is_prior_two_sided: bool
) -> None:
    logits, codes = scale * LOGITS[:30], CODES[:30]
    factors = np.geomspace(0.1, 10, 4000)
    scaled = logits * factors[:, None, None]
    of_class = scaled[:, np.arange(30), codes]
    likelihood = (of_class - np.log(np.exp(scaled).sum(axis=2))).sum(axis=1)
    doubted = np.log(factors) if is_prior_two_sided else np.log(factors).clip(min=0)
    posterior = likelihood + norm(0, 0.7).logpdf(doubted)
    found = find_inverse_temperature(
        torch.tensor(logits),
        torch.tensor(codes),
        torch.ones(30),
        is_prior_two_sided=is_prior_two_sided,
    )
    assert found == pytest.approx(factors[posterior.argmax()], rel=0.005)
    assert (found < 1) == (scale > 1)
