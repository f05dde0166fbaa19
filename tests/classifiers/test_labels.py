import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from plug_sklearn.classifiers._labels import (
    encode_labels,
    match_labels,
    read_sample_weight,
    scale_below_one,
    weigh_classes,
)

LABELS = np.array(["a", "b"])
CODES = np.array([0, 0, 0, 1])
ONES = np.ones(4)


def test_labels_of_rows_without_weight_are_no_classes() -> None:
    y = np.array(["c", "a", "b", "c"])
    classes, codes = encode_labels(y, np.array([1.0, 0, 2, 1]), "Probe")
    assert classes.tolist() == ["b", "c"]
    assert codes[[0, 2, 3]].tolist() == [1, 0, 1]


def test_one_class_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match=r"two classes\. Got one class, 'a', instead"):
        encode_labels(np.array(["a", "b"]), np.array([1.0, 0]), "Probe")


def test_known_labels_are_numbered() -> None:
    assert match_labels(np.array(["b", "a"]), LABELS, "Probe").tolist() == [1, 0]


def test_unknown_label_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match=r"that y holds, \['a', 'b'\]. Got \['c'\]"):
        match_labels(np.array(["b", "c"]), LABELS, "Probe")


def test_sample_weights_of_zero_alone_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"weights .*zero"):
        read_sample_weight([0, 0], np.zeros((2, 1), np.float32), "Probe")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_sample_weights_that_are_not_finite_are_an_error(bad: float) -> None:
    with pytest.raises(ValueError, match=r"sample_weight contains (NaN|infinity)"):
        read_sample_weight([1, bad], np.zeros((2, 1), np.float32), "Probe")


@given(st.lists(st.floats(1e-290, 1.7e308), min_size=1, max_size=5))
def test_scaled_weights_keep_their_ratios_and_do_not_overflow(
    weight: list[float],
) -> None:
    scaled = scale_below_one(np.array(weight))
    assert 0.5 <= scaled.max() < 1
    heaviest = int(scaled.argmax())
    ratios = np.array(weight) / weight[heaviest]
    np.testing.assert_allclose(scaled / scaled[heaviest], ratios, atol=1e-300)


def test_negative_sample_weights_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"[Nn]egative"):
        read_sample_weight([1, -1], np.zeros((2, 1), np.float32), "Probe")


def test_balanced_factors_are_scikit_learns_without_weights() -> None:
    expected = compute_class_weight("balanced", classes=LABELS, y=LABELS[CODES])
    assert weigh_classes("balanced", LABELS, CODES, ONES, "Probe") == pytest.approx(
        expected
    )


def test_balanced_factors_make_weighted_classes_weigh_the_same() -> None:
    weight = np.array([1.0, 2.0, 3.0, 0.5])
    factors = weigh_classes("balanced", LABELS, CODES, weight, "Probe")
    totals = np.bincount(CODES, weight * factors[CODES])
    assert totals == pytest.approx([3.25, 3.25])


def test_factors_by_label_default_to_one() -> None:
    factors = weigh_classes({"b": 3.0}, LABELS, CODES, ONES, "Probe")
    assert factors[1] / factors[0] == 3


@pytest.mark.parametrize(
    "class_weight",
    [{"a": -1.0}, {"a": 0.0, "b": 0.0}, {"a": np.nan}, {"a": np.inf}, {"b": -np.inf}],
)
def test_factors_that_are_no_weights_are_an_error(
    class_weight: dict[str, float],
) -> None:
    with pytest.raises(ValueError, match="'class_weight' parameter of Probe must"):
        weigh_classes(class_weight, LABELS, CODES, ONES, "Probe")
