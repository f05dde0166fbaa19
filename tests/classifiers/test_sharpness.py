import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.metrics import log_loss

from plug_sklearn.classifiers._sharpness import find_sharpness

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(4000, 3))
CODES = np.array([RNG.choice(3, p=np.exp(row) / np.exp(row).sum()) for row in LOGITS])


def find(factor: float, weights: np.ndarray | None = None) -> float:
    weights = np.ones(4000) if weights is None else weights
    return find_sharpness(
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
    alone = find_sharpness(logits[2000:], codes[2000:], torch.ones(2000))
    assert find(1.0, weights) == pytest.approx(alone, abs=1e-3)
    with_none = find_sharpness(logits, codes, torch.ones(4000))
    assert with_none == pytest.approx(alone, abs=1e-3)


@pytest.mark.parametrize("is_told_apart", [True, False])
def test_few_rows_do_not_make_it_sure_or_unsure_without_end(
    is_told_apart: bool,
) -> None:
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    codes = torch.tensor([0, 1] if is_told_apart else [1, 0])
    found = find_sharpness(logits, codes, torch.ones(2))
    assert 0.6 < found < 1.5
    assert (found > 1) == is_told_apart


@pytest.mark.parametrize("scale", [0.5, 3.0])
@pytest.mark.parametrize("doubt_below_one", [True, False])
def test_the_factor_is_the_most_probable_with_a_log_normal_prior(
    scale: float, doubt_below_one: bool
) -> None:
    logits, codes = scale * LOGITS[:30], CODES[:30]
    factors = np.geomspace(0.1, 10, 4000)
    scaled = logits * factors[:, None, None]
    of_class = scaled[:, np.arange(30), codes]
    likelihood = (of_class - np.log(np.exp(scaled).sum(axis=2))).sum(axis=1)
    doubted = np.log(factors) if doubt_below_one else np.log(factors).clip(min=0)
    posterior = likelihood + norm(0, 0.7).logpdf(doubted)
    found = find_sharpness(
        torch.tensor(logits),
        torch.tensor(codes),
        torch.ones(30),
        doubt_below_one=doubt_below_one,
    )
    assert found == pytest.approx(factors[posterior.argmax()], rel=0.005)
    assert (found < 1) == (scale > 1)
