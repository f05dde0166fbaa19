from collections.abc import Callable
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from plug_sklearn import brier_score, calibration_bins, expected_calibration_error

RNG = np.random.default_rng(0)
Y = RNG.integers(2, size=300)
P = np.clip(0.6 * Y + RNG.normal(0.2, 0.2, size=300), 0, 1)
Y3 = RNG.integers(3, size=300)
P3 = RNG.dirichlet(np.ones(3), size=300)
binary = st.lists(st.tuples(st.booleans(), st.integers(0, 40)), min_size=1, max_size=60)


def reckon_ece(y: list[int], numerators: list[int], denominator: int) -> Fraction:
    """Ten bins, closed on the right, of the predicted class's confidence, exactly."""
    bins: dict[int, list[tuple[Fraction, bool]]] = {}
    for label, numerator in zip(y, numerators, strict=True):
        p = Fraction(numerator, denominator)
        confidence, predicted = (p, 1) if p > Fraction(1, 2) else (1 - p, 0)
        (number,) = (
            k for k in range(10) if Fraction(k, 10) < confidence <= Fraction(k + 1, 10)
        )
        bins.setdefault(number, []).append((confidence, predicted == label))
    error = Fraction(0)
    for rows in bins.values():
        mean = sum(c for c, _ in rows) / len(rows)
        accuracy = Fraction(sum(right for _, right in rows), len(rows))
        error += Fraction(len(rows), len(y)) * abs(mean - accuracy)
    return error


def test_ece_is_what_the_hand_finds() -> None:
    # Confidences 0.9, 0.8 | 0.7, 0.7; right, right | right, wrong.
    y, p = [1, 0, 0, 1], [0.9, 0.2, 0.3, 0.3]
    expected = (abs(0.9 - 1) + abs(0.8 - 1) + 2 * abs(0.7 - 0.5)) / 4
    assert_allclose(expected_calibration_error(y, p), expected)


@given(binary)
def test_ece_is_exact_for_decimals_on_edges_and_off(
    rows: list[tuple[bool, int]],
) -> None:
    y, numerators = [int(label) for label, _ in rows], [n for _, n in rows]
    p = np.array(numerators) / 40
    expected = float(reckon_ece(y, numerators, 40))
    assert_allclose(expected_calibration_error(y, p), expected, atol=1e-12)


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_positive_bins_are_those_of_scikit_learns_calibration_curve(
    strategy: str,
) -> None:
    bins = calibration_bins(Y, P, method="positive", strategy=strategy)
    frequency, probability = calibration_curve(Y, P, n_bins=10, strategy=strategy)
    assert_allclose(bins["frequency"], frequency)
    assert_allclose(bins["probability"], probability)


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_the_order_of_the_rows_changes_nothing(strategy: str) -> None:
    order = RNG.permutation(300)
    rounded = P.round(1)
    ece = partial(expected_calibration_error, strategy=strategy)
    assert_allclose(ece(Y[order], rounded[order]), ece(Y, rounded))


def test_two_columns_and_one_say_the_same() -> None:
    columns = np.column_stack([1 - P, P])
    for method in ("confidence", "positive"):
        ece = partial(expected_calibration_error, method=method)
        assert ece(Y, columns) == ece(Y, P)
    assert brier_score(Y, columns) == brier_score(Y, P)


def test_naming_the_other_class_positive_turns_one_column_round() -> None:
    named = np.array(["no", "yes"])[Y]
    for metric in (expected_calibration_error, brier_score):
        assert_allclose(metric(named, 1 - P, pos_label="no"), metric(Y, P))
        columns = np.column_stack([1 - P, P])
        assert_allclose(metric(named, columns, pos_label="no"), metric(Y, P))


def test_multiclass_ece_is_that_of_confidence_and_correctness() -> None:
    right = P3.argmax(axis=1) == Y3
    expected = expected_calibration_error(right, P3.max(axis=1), method="positive")
    assert_allclose(expected_calibration_error(Y3, P3), expected)


def test_labels_name_the_columns_in_any_order() -> None:
    names = np.array(["b", "c", "a"])
    for metric in (expected_calibration_error, brier_score):
        assert_allclose(metric(names[Y3], P3, labels=names), metric(Y3, P3))


def test_perfect_certainty_has_no_error() -> None:
    assert expected_calibration_error(Y3, np.eye(3)[Y3]) == 0
    assert brier_score(Y3, np.eye(3)[Y3]) == 0


def test_brier_of_two_classes_is_the_mean_square_of_the_positive_one() -> None:
    assert_allclose(brier_score(Y, P), np.mean((Y - P) ** 2))
    assert_allclose(brier_score(Y, P), brier_score_loss(Y, P))


def test_brier_of_more_classes_sums_over_them() -> None:
    by_hand = sum((P3[:, k] - (Y3 == k)) ** 2 for k in range(3)).mean()
    assert_allclose(brier_score(Y3, P3), by_hand)
    assert_allclose(brier_score(Y3, P3), brier_score_loss(Y3, P3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_bins": 0}, "'n_bins' parameter of expected_calibration_error must be"),
        ({"strategy": "even"}, "'strategy' parameter"),
        ({"closed": "both"}, "'closed' parameter"),
        ({"method": "positive"}, "'method' parameter .* more than two classes"),
        ({"labels": [0, 1]}, "'labels' parameter .* must name the 3 classes"),
        ({"labels": [0, 1, 3]}, r"Got \[0, 1, 3\], without \[2\]"),
        ({"pos_label": 1}, "'pos_label' parameter .* must be one of two labels"),
        ({"y_proba": 2 * P3}, r"'y_proba' parameter .* in \[0, 1\]"),
        ({"y_proba": P3 / 2}, "'y_proba' parameter .* add up to 1"),
    ],
)
def test_bad_input_is_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        expected_calibration_error(**{"y_true": Y3, "y_proba": P3, **arguments})


@pytest.mark.parametrize(
    "function", [expected_calibration_error, calibration_bins, brier_score]
)
def test_messages_name_the_function_that_was_called(function: Callable) -> None:
    with pytest.raises(ValueError, match=f"parameter of {function.__name__} must"):
        function(Y3, 2 * P3)


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


TWO = np.array([0.1, 0.8])


def test_one_column_is_of_the_second_label() -> None:
    assert_allclose(brier_score(["no", "yes"], TWO), (0.1**2 + 0.2**2) / 2)
    assert_allclose(brier_score(["yes", "no"], TWO), (0.9**2 + 0.8**2) / 2)


@pytest.mark.parametrize("only", [1, -1, True])
def test_the_absent_one_of_two_usual_labels_is_known(only: object) -> None:
    bins = calibration_bins([only, only], TWO, method="positive")
    assert bins["frequency"].tolist() == 2 * [float(only == 1)]


def test_the_absent_one_of_other_labels_must_be_named() -> None:
    with pytest.raises(ValueError, match="'labels' parameter of brier_score must name"):
        brier_score(["yes", "yes"], TWO)
    found = brier_score(["yes", "yes"], TWO, labels=["no", "yes"])
    assert_allclose(found, (0.9**2 + 0.2**2) / 2)


def test_labels_that_are_named_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="'labels' parameter of brier_score"):
        brier_score([0, 1], TWO, labels=[1, 1])


@pytest.mark.parametrize("wrong", [[0.5, 1.0], [0.0, np.nan]])
def test_labels_that_are_fractions_or_missing_are_refused(wrong: list[float]) -> None:
    with pytest.raises(ValueError, match=r"'y_true' parameter .* or NaN\. Got \S+\.$"):
        brier_score(wrong, TWO)


@pytest.mark.parametrize("wrong", [0.5, [[0.5], [0.5]], [[[0.5, 0.5]]]])
def test_probabilities_of_another_shape_are_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"'y_proba' parameter of .* Got shape"):
        brier_score([0, 1], wrong)
