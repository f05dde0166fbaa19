import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from plug_sklearn.classifiers._batches import Rows
from plug_sklearn.classifiers._ridge import make_targets, predict
from plug_sklearn.classifiers._stack_probes import (
    HeldOut,
    StackWeights,
    Standardised,
    Training,
    choose_penalty,
    choose_weights,
    fit_probe,
    hold_out_repeatedly,
)

RNG = np.random.default_rng(0)
CODES = np.arange(60) % 2


def draw_probes(
    n_classes: int, strengths: list[float], seed: int = 0
) -> tuple[np.ndarray, HeldOut]:
    """Draw logits of probes that know the classes so well."""
    rng = np.random.default_rng(seed)
    targets = make_targets(rng.integers(n_classes, size=200), n_classes)
    noise = rng.normal(size=(len(strengths), *targets.shape))
    signal = np.multiply.outer(strengths, 2 * targets - 1)
    return signal + noise, HeldOut(targets, np.ones(200))


def join(
    logits: np.ndarray,
    held_out: HeldOut,
    parts: list[int] | None = None,
    depths: list[float] | None = None,
) -> StackWeights:
    """Join probes of a scale of 1, of one part and depth unless told otherwise."""
    ones = np.ones(len(logits))
    return choose_weights(
        logits, ones, np.array(depths or ones), np.array(parts or 0 * ones), held_out
    )


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
    weights = join(logits, held_out).weights
    assert 0 < weights.sum() <= 1 + 1e-9
    assert (weights[weights > 0] >= 0.0099 * weights.max()).all()


def test_the_order_of_probes_does_not_matter() -> None:
    logits, held_out = draw_probes(2, [0.8, 1.0, 0.9, 0.0])
    there = join(logits, held_out)
    back = join(logits[::-1], held_out)
    np.testing.assert_allclose(there.weights, back.weights[::-1], atol=1e-4)
    assert there.temperature == pytest.approx(back.temperature, rel=1e-4)


def test_probes_that_know_nothing_are_dropped() -> None:
    logits, held_out = draw_probes(2, [1.0, 0.0, 1.0, 0.0])
    weights = join(logits, held_out).weights
    assert list(np.flatnonzero(weights)) == [0, 2]


def test_two_probes_that_err_elsewhere_are_better_together() -> None:
    logits, held_out = draw_probes(2, [1.0, 1.0])
    found = join(logits, held_out)
    joined = np.tensordot(found.factors, logits, axes=1) + found.constant
    assert held_out.compute_loss(joined) < held_out.compute_loss(logits).min()


def test_a_row_held_out_twice_counts_once() -> None:
    logits, held_out = draw_probes(2, [0.9, 1.0])
    twice = HeldOut(np.tile(held_out.targets, (2, 1)), np.full(400, 0.5))
    once = join(logits, held_out)
    again = join(np.tile(logits, (1, 2, 1)), twice)
    np.testing.assert_allclose(once.weights, again.weights, atol=1e-5)
    assert once.temperature == pytest.approx(again.temperature)


def test_the_luckiest_of_many_probes_that_know_nothing_does_not_win() -> None:
    logits, held_out = draw_probes(2, [0.0] * 60)
    others, fresh = draw_probes(2, [0.0] * 60, seed=1)
    found = join(0.3 * logits, held_out)
    joined = np.tensordot(found.factors, 0.3 * others, axes=1) + found.constant
    luckiest = held_out.compute_loss(0.3 * logits).argmin()
    harm = fresh.compute_loss(joined) - np.log(2)
    of_luckiest = fresh.compute_loss(0.3 * others[luckiest]) - np.log(2)
    assert harm < 0.5 * of_luckiest


@pytest.mark.parametrize("seed", range(5))
def test_the_constant_outweighs_a_probe_that_knows_nothing(seed: int) -> None:
    logits, held_out = draw_probes(2, [0.0], seed)
    assert join(0.3 * logits, held_out).weights.sum() < 0.5


def test_a_part_that_knows_nothing_is_left_out() -> None:
    logits, held_out = draw_probes(2, [0.3, 0.0] * 20)
    together = join(logits, held_out, [0, 1] * 20).weights
    alone = join(logits[::2], held_out).weights
    assert together[1::2].sum() < 0.02
    np.testing.assert_allclose(together[::2], alone, atol=0.02)


def test_a_weaker_part_counts_where_it_corrects_the_other() -> None:
    rng = np.random.default_rng(0)
    targets = make_targets(rng.integers(2, size=200), 2)
    signs, shape = 2 * targets - 1, (10, 200, 1)
    # The errors of probes of the same part are nearly the same.
    noise = rng.normal(size=(2, 200, 1))
    first = 0.8 * signs + noise[0] + 0.1 * rng.normal(size=shape)
    second = 0.6 * signs + noise[1] + 0.1 * rng.normal(size=shape)
    held_out = HeldOut(targets, np.ones(200))
    logits = np.concatenate([first, second])
    weights = join(logits, held_out, [0] * 10 + [1] * 10).weights
    assert 0.25 < weights[10:].sum() < 0.5


def test_numbers_of_parts_are_only_names() -> None:
    logits, held_out = draw_probes(2, [0.8, 0.6, 0.9, 0.7])
    there = join(logits, held_out, [0, 1, 0, 1]).weights
    renamed = join(logits, held_out, [7, 3, 7, 3]).weights
    np.testing.assert_allclose(there, renamed, atol=1e-4)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_prior_logits_are_the_frequencies(n_classes: int) -> None:
    codes = np.repeat([0, 1, 1, 1, n_classes - 1], 2000)
    held_out = HeldOut(make_targets(codes, n_classes), np.ones(10_000))
    found = predict(held_out.compute_prior_logits())
    expected = make_targets(codes, n_classes).mean(axis=0)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_weaker_probes_that_know_something_else_get_weight() -> None:
    # On 200 rows, the losses alone would give the weaker probes next to no weight.
    logits, held_out = draw_probes(2, [1.2, 0.7, 0.7, 0.7])
    scales = np.array([held_out.find_scale(own, 0.5) for own in logits])
    logits *= scales[:, None, None]
    losses = held_out.compute_loss(logits)
    assert (np.exp(-0.4 * 200 * (losses[1:] - losses[0])) < 2e-4).all()
    assert join(logits, held_out).weights[1:].sum() > 0.1


def test_of_equal_probes_those_of_middle_layers_get_more_weight() -> None:
    logits, held_out = draw_probes(2, [0.7])
    depths = [0.1, 0.3, 0.5, 0.7, 0.9]
    weights = join(np.repeat(logits, 5, axis=0), held_out, depths=depths).weights
    assert weights[2] > weights[1] > weights[0]
    np.testing.assert_allclose(weights, weights[::-1], rtol=1e-3)
    # Equal logits leave the prior as it is.
    assert weights[1] / weights[2] == pytest.approx(np.exp(-0.5), rel=1e-3)


def test_a_clearly_better_layer_at_an_end_wins_against_the_middle() -> None:
    logits, held_out = draw_probes(2, [1.5, 0.3, 0.3, 0.3, 0.3])
    weights = join(logits, held_out, depths=[0.1, 0.3, 0.5, 0.7, 0.9]).weights
    assert weights[0] > 0.8


def make_training(folds: np.ndarray | None = None) -> Training:
    rows = Rows(np.empty((60, 1), np.float32), CODES, RNG.uniform(0.5, 2, 60))
    return Training.make(rows, np.array([1.0, 3.0]), folds)


@pytest.mark.parametrize("n_units", [20, 100])
def test_features_have_the_inner_products_of_standardised_units(n_units: int) -> None:
    samples = 3 + RNG.normal(size=(60, n_units)) * RNG.uniform(0.1, 9, n_units)
    features = Standardised(samples, np.ones(60)).features
    units = StandardScaler().fit_transform(samples) / np.sqrt(n_units)
    assert features.shape == (60, min(60, n_units))
    np.testing.assert_allclose(features @ features.T, units @ units.T, atol=1e-6)


@pytest.mark.parametrize("n_units", [20, 100])
def test_a_probe_is_logistic_regression_on_standardised_units(n_units: int) -> None:
    samples = RNG.normal(size=(60, n_units)) * RNG.uniform(0.1, 9, n_units)
    samples[:, 0] += CODES
    training = make_training()
    assert training.weight.mean() == pytest.approx(1)
    slopes, intercept = fit_probe(samples, training, 5.0)
    scaler = StandardScaler().fit(samples, sample_weight=training.weight)
    expected = LogisticRegression(C=5.0 / n_units, tol=1e-9, max_iter=10_000)
    scaled = scaler.transform(samples)
    expected.fit(scaled, CODES, sample_weight=training.weight)
    found = samples @ slopes[0] + intercept[0]
    np.testing.assert_allclose(found, expected.decision_function(scaled), atol=1e-3)


def test_constant_units_have_no_slope() -> None:
    samples = RNG.normal(size=(60, 5)).astype(np.float32)
    samples[:, 2] = 0.1
    slopes, _ = fit_probe(samples, make_training(), 1.0)
    assert slopes[0, 2] == 0
    assert np.abs(slopes[0, [0, 1, 3, 4]]).min() > 0


def test_held_out_logits_are_of_regressions_that_did_not_see_the_rows() -> None:
    # Labels that nothing predicts: who saw them would predict them well.
    samples = RNG.normal(size=(60, 200)).astype(np.float32)
    folds = np.arange(60) % 5 == np.arange(5)[:, None]
    training = make_training(folds)
    assert training.held_out is not None
    choice, logits = choose_penalty(samples, training, training.held_out, [100.0])
    assert logits.shape == (60, 1)
    assert choice.C == 100.0
    assert choice.loss == pytest.approx(training.held_out.compute_loss(logits))
    assert choice.loss > 0.6


def test_noise_gets_a_strong_penalty_and_a_clear_signal_a_weak_one() -> None:
    folds = np.arange(60) % 5 == np.arange(5)[:, None]
    training = make_training(folds)
    assert training.held_out is not None
    noisy = RNG.normal(size=(60, 30))
    noisy[:, :25] += 0.2 * CODES[:, None]
    clear = RNG.normal(size=(60, 30))
    clear[:, 0] += 8 * CODES
    grid = [0.01, 1.0, 100.0]
    weak, strong = (
        choose_penalty(samples, training, training.held_out, grid)[0].C
        for samples in (noisy, clear)
    )
    assert weak < strong


def test_repeats_give_about_a_thousand_predictions() -> None:
    for n_rows, n_repeats in ((60, 10), (400, 3), (2000, 1)):
        codes = np.arange(n_rows) % 2
        rows = Rows(np.empty((n_rows, 1), np.float32), codes, np.ones(n_rows))
        folds = hold_out_repeatedly(rows, 4, None, seed=0)
        assert folds is not None
        assert folds.shape == (4 * n_repeats, n_rows)
        # Every class rounds the number of its rows in a fold.
        assert folds.sum() == pytest.approx(n_repeats * n_rows, rel=0.1)


def test_no_group_is_on_both_sides_of_a_fold() -> None:
    groups = RNG.integers(15, size=60)
    rows = Rows(np.empty((60, 1), np.float32), CODES, np.ones(60), groups)
    folds = hold_out_repeatedly(rows, 5, 2, seed=0)
    assert folds is not None
    for held_out in folds:
        assert not set(groups[held_out]) & set(groups[~held_out])


def test_few_rows_are_not_held_out() -> None:
    rows = Rows(np.empty((19, 1), np.float32), CODES[:19], np.ones(19))
    assert hold_out_repeatedly(rows, 5, 2, seed=0) is None
