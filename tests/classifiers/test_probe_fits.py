import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from plug_sklearn.classifiers._data import Rows
from plug_sklearn.classifiers._probe_fits import (
    Standardised,
    Training,
    choose_penalty,
    fit_probe,
    hold_out_repeatedly,
)

RNG = np.random.default_rng(0)
CODES = np.arange(60) % 2


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
