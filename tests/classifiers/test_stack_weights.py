import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plug_sklearn.classifiers._ridge import make_targets, predict
from plug_sklearn.classifiers._stack_weights import HeldOut, choose_weights


def draw_probes(
    n_classes: int, strengths: list[float], seed: int = 0
) -> tuple[np.ndarray, HeldOut]:
    """Draw logits of probes that know the classes so well."""
    rng = np.random.default_rng(seed)
    targets = make_targets(rng.integers(n_classes, size=200), n_classes)
    noise = rng.normal(size=(len(strengths), *targets.shape))
    signal = np.multiply.outer(strengths, 2 * targets - 1)
    return signal + noise, HeldOut(targets, np.ones(200))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_scale_is_the_most_probable(n_classes: int) -> None:
    logits, held_out = draw_probes(n_classes, [1.0])
    found = held_out.find_scale(logits[0], 0.5)
    tried = np.exp(np.linspace(-2, 2, 4001))
    stacked = tried[:, None, None] * logits[0]
    objective = 200 * held_out.compute_loss(stacked) + 2 * np.log(tried) ** 2
    assert found == pytest.approx(tried[objective.argmin()], rel=2e-3)


def test_few_rows_that_a_probe_separates_leave_its_scale_finite() -> None:
    held_out = HeldOut(make_targets(np.array([0, 1]), 2), np.ones(2))
    assert held_out.find_scale(np.array([[-1.0], [1.0]]), 0.5) < 2


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.floats(0, 2), min_size=1, max_size=6),
    st.sampled_from([2, 3]),
    st.integers(0, 99),
)
def test_weights_are_shares_and_none_is_tiny(
    strengths: list[float], n_classes: int, seed: int
) -> None:
    logits, held_out = draw_probes(n_classes, strengths, seed)
    weights = choose_weights(logits, np.ones(len(strengths)), held_out).weights
    assert 0 < weights.sum() <= 1 + 1e-9
    assert (weights[weights > 0] >= 0.0099 * weights.max()).all()


def test_the_order_of_probes_does_not_matter() -> None:
    logits, held_out = draw_probes(2, [0.8, 1.0, 0.9, 0.0])
    there = choose_weights(logits, np.ones(4), held_out)
    back = choose_weights(logits[::-1], np.ones(4), held_out)
    np.testing.assert_allclose(there.weights, back.weights[::-1], atol=1e-4)
    assert there.temperature == pytest.approx(back.temperature, rel=1e-4)


def test_probes_that_know_nothing_are_dropped() -> None:
    logits, held_out = draw_probes(2, [1.0, 0.0, 1.0, 0.0])
    weights = choose_weights(logits, np.ones(4), held_out).weights
    assert list(np.flatnonzero(weights)) == [0, 2]


def test_two_probes_that_err_elsewhere_are_better_together() -> None:
    logits, held_out = draw_probes(2, [1.0, 1.0])
    combination = choose_weights(logits, np.ones(2), held_out)
    combined = np.tensordot(combination.factors, logits, axes=1) + combination.constant
    assert held_out.compute_loss(combined) < held_out.compute_loss(logits).min()


def test_a_row_held_out_twice_counts_once() -> None:
    logits, held_out = draw_probes(2, [0.9, 1.0])
    twice = HeldOut(np.tile(held_out.targets, (2, 1)), np.full(400, 0.5))
    once = choose_weights(logits, np.ones(2), held_out)
    again = choose_weights(np.tile(logits, (1, 2, 1)), np.ones(2), twice)
    np.testing.assert_allclose(once.weights, again.weights, atol=1e-5)
    assert once.temperature == pytest.approx(again.temperature)


def test_the_luckiest_of_many_probes_that_know_nothing_does_not_win() -> None:
    logits, held_out = draw_probes(2, [0.0] * 60)
    combination = choose_weights(0.3 * logits, np.ones(60), held_out)
    assert combination.weights.sum() < 0.7


@pytest.mark.parametrize("n_classes", [2, 3])
def test_prior_logits_are_the_frequencies(n_classes: int) -> None:
    codes = np.repeat([0, 1, 1, 1, n_classes - 1], 2000)
    held_out = HeldOut(make_targets(codes, n_classes), np.ones(10_000))
    found = predict(held_out.compute_prior_logits())
    expected = make_targets(codes, n_classes).mean(axis=0)
    np.testing.assert_allclose(found, expected, atol=1e-3)
