import numpy as np
import pytest
from numpy.testing import assert_allclose

from plug_sklearn import calibration_bins, expected_calibration_error

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("closed", ["right", "left"])
@pytest.mark.parametrize("n_bins", [10, 20])
def test_a_decimal_on_an_edge_falls_on_the_closed_side_whatever_its_precision(
    dtype: type, closed: str, n_bins: int
) -> None:
    for edge in range(n_bins + 1):
        p = np.array([float(str(edge / n_bins))], dtype=dtype)
        bins = calibration_bins(
            [0], p, n_bins=n_bins, method="positive", closed=closed, labels=[0, 1]
        )
        held = bins["upper"] if closed == "right" else bins["lower"]
        outermost = {"right": 0, "left": n_bins}[closed]
        if edge != outermost:
            assert_allclose(held, [edge / n_bins], rtol=1e-3)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n_bins", [10, 20, 100])
def test_a_confidence_lies_on_an_edge_whichever_class_it_is_of(
    dtype: type, n_bins: int
) -> None:
    for edge in range(n_bins // 2):
        p = np.array([edge / n_bins], dtype=dtype)  # of class 1; class 0 is predicted
        bins = calibration_bins([0], p, n_bins=n_bins, labels=[0, 1])
        assert_allclose(bins["upper"], [1 - edge / n_bins], rtol=1e-6)


def test_zero_is_in_the_first_bin_and_one_in_the_last_on_either_side() -> None:
    for closed in ("right", "left"):
        bins = calibration_bins([0, 1], [0.0, 1.0], method="positive", closed=closed)
        assert_allclose(bins["lower"], [0, 0.9])
        assert bins["n_samples"].tolist() == [1, 1]


def test_the_first_of_two_classes_is_predicted_where_they_tie() -> None:
    assert expected_calibration_error([0, 0], [0.5, 0.5]) == 0.5
    assert expected_calibration_error([1, 0], [0.5, 0.5]) == 0
    assert calibration_bins([0], [0.5])["frequency"].tolist() == [1]
    assert calibration_bins([1], [0.5])["frequency"].tolist() == [0]


def test_quantile_bins_hold_equal_counts() -> None:
    p = RNG.permutation(np.linspace(0.5, 1, 60))
    bins = calibration_bins(np.ones(60), p, strategy="quantile", n_bins=6)
    assert bins["n_samples"].tolist() == [10] * 6


def test_rows_of_the_same_probability_share_a_quantile_bin() -> None:
    p = np.repeat([0.55, 0.75, 0.95], [30, 5, 25])
    bins = calibration_bins(np.ones(60), p, strategy="quantile", n_bins=6)
    assert bins["n_samples"].tolist() == [30, 30]
    assert_allclose(bins["probability"], [0.55, (5 * 0.75 + 25 * 0.95) / 30])


@pytest.mark.parametrize("closed", ["right", "left"])
@pytest.mark.parametrize("n_bins", range(2, 25))
def test_a_value_on_a_quantile_falls_on_the_closed_side(
    n_bins: int, closed: str
) -> None:
    for step in (1, 2, 3):  # every step-th value is an edge
        p = RNG.random(step * n_bins + 1)
        bins = calibration_bins(
            np.ones(len(p)),
            p,
            n_bins=n_bins,
            strategy="quantile",
            method="positive",
            closed=closed,
            labels=[0, 1],
        )
        outermost = 0 if closed == "right" else -1
        expected = np.full(n_bins, step)
        expected[outermost] += 1
        assert bins["n_samples"].tolist() == expected.tolist()
