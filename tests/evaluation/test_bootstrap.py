import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from sklearn.metrics import accuracy_score, log_loss, mean_absolute_error, roc_auc_score

from plug_sklearn import bootstrap_interval, expected_calibration_error

RNG = np.random.default_rng(0)
FEW = 200  # resamples
Y = (np.arange(200) % 4 == 0).astype(int)
P = 1 / (1 + np.exp(-(2 * Y - 1 + RNG.normal(size=200))))
NOISY = 1 / (1 + np.exp(-(0.5 * Y + RNG.normal(size=200))))


def test_estimate_is_the_metric_and_lies_in_its_interval() -> None:
    interval = bootstrap_interval(roc_auc_score, Y, P, n_resamples=FEW, random_state=0)
    assert interval.estimate == roc_auc_score(Y, P)
    assert interval.lower < interval.estimate < interval.upper
    assert interval.level == 0.95


def test_the_same_seed_gives_the_same_interval_on_any_number_of_workers() -> None:
    one, other = (
        bootstrap_interval(log_loss, Y, P, n_resamples=300, random_state=3, n_jobs=n)
        for n in (None, 2)
    )
    assert one == other
    assert one != bootstrap_interval(log_loss, Y, P, n_resamples=300, random_state=4)


def test_numpys_global_generator_is_left_alone() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - it is what is tested
    bootstrap_interval(roc_auc_score, Y, P, n_resamples=10, random_state=0)
    after = np.random.get_state()[1]  # noqa: NPY002 - as above
    assert (before == after).all()


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    right = RNG.random(2000) < 0.7
    interval = bootstrap_interval(accuracy_score, np.ones(2000), right, random_state=0)
    error = np.sqrt(right.mean() * (1 - right.mean()) / 2000)
    assert_allclose(interval.standard_error, error, rtol=0.05)
    ends = stats.norm.interval(0.95, right.mean(), error)
    assert_allclose([interval.lower, interval.upper], ends, atol=0.003)


def test_stratified_resamples_have_every_class_as_often_as_the_rows() -> None:
    def count(y_true: np.ndarray, y_pred: np.ndarray) -> float:
        return y_true.sum()

    interval = bootstrap_interval(count, Y, P, n_resamples=50, random_state=0)
    assert interval.lower == interval.upper == Y.sum()
    loose = bootstrap_interval(
        count, Y, P, n_resamples=50, stratify=False, random_state=0
    )
    assert loose.lower < Y.sum() < loose.upper


def test_two_models_are_compared_on_the_same_resamples() -> None:
    same = bootstrap_interval(log_loss, Y, P, other=P, n_resamples=FEW, random_state=0)
    assert (same.estimate, same.lower, same.upper) == (0, 0, 0)
    better = bootstrap_interval(
        roc_auc_score, Y, P, other=NOISY, n_resamples=FEW, random_state=0
    )
    assert better.estimate == roc_auc_score(Y, P) - roc_auc_score(Y, NOISY)
    assert better.lower > 0


def test_pairing_cancels_the_chance_that_two_models_share() -> None:
    nearly = np.clip(P + RNG.normal(0, 0.01, size=200), 0, 1)
    paired = bootstrap_interval(
        roc_auc_score, Y, P, other=nearly, n_resamples=FEW, random_state=0
    )
    alone = bootstrap_interval(roc_auc_score, Y, P, n_resamples=FEW, random_state=0)
    assert paired.standard_error < alone.standard_error / 3


def test_groups_are_drawn_whole() -> None:
    groups = np.repeat(np.arange(20), 10)

    def is_whole(y_true: np.ndarray, y_pred: np.ndarray) -> float:
        counts = np.unique(y_pred, return_counts=True)[1]
        return float((counts % 10 == 0).all())

    interval = bootstrap_interval(
        is_whole, Y, groups, groups=groups, n_resamples=50, random_state=0
    )
    assert interval.lower == interval.upper == 1


def test_rows_that_repeat_in_groups_widen_the_interval_by_the_root() -> None:
    y, p = np.repeat(Y, 9), np.repeat(P, 9)
    groups = np.repeat(np.arange(200), 9)

    def miss(y_true: np.ndarray, y_pred: np.ndarray) -> float:
        return float(np.mean((y_true - y_pred) ** 2))

    grouped = bootstrap_interval(miss, y, p, groups=groups, random_state=0)
    naive = bootstrap_interval(miss, y, p, stratify=False, random_state=0)
    ratio = grouped.standard_error / naive.standard_error
    assert_allclose(ratio, 3, rtol=0.1)


def test_probabilities_of_more_classes_can_be_measured() -> None:
    y = np.arange(90) % 3
    p = RNG.dirichlet(np.ones(3), size=90)
    interval = bootstrap_interval(
        expected_calibration_error, y, p, n_resamples=50, random_state=0
    )
    assert interval.estimate == expected_calibration_error(y, p)


def test_an_interval_prints_its_three_numbers() -> None:
    interval = bootstrap_interval(accuracy_score, Y, Y, n_resamples=5, random_state=0)
    assert str(interval) == "1.000 [1.000, 1.000]"


@pytest.mark.parametrize("y", [RNG.normal(size=50), np.arange(50)])
def test_numbers_are_not_stratified(y: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"'stratify' parameter .* must be False"):
        bootstrap_interval(mean_absolute_error, y, y)
    loose = bootstrap_interval(
        mean_absolute_error, y, y + y**2, stratify=False, n_resamples=50
    )
    assert loose.lower < loose.upper


def test_a_metric_by_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'metric' parameter .* must be a function"):
        bootstrap_interval("roc_auc", [0, 1], [0.2, 0.7])


def test_a_metric_that_is_nan_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'metric' parameter .* NaN for 10 of 10"):
        bootstrap_interval(lambda y, p: np.nan, Y, P, n_resamples=10)


@pytest.mark.parametrize(("name", "value"), [("level", 1), ("n_resamples", 1)])
def test_bad_parameters_are_named(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"'{name}' parameter of bootstrap_interval"):
        bootstrap_interval(roc_auc_score, Y, P, **{name: value})
