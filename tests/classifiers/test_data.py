from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import BaseEstimator
from sklearn.utils.class_weight import compute_class_weight

from plug_sklearn import PlugCNNClassifier, PlugMLPClassifier, PlugStackClassifier
from plug_sklearn.classifiers._batches import Rows
from plug_sklearn.classifiers._data import (
    compute_class_factors,
    draw_seeds,
    encode_labels,
    hold_out_rows,
    read_rows,
    read_sample_weight,
    read_samples,
    read_validation_rows,
    scale_below_one,
)


class Probe(BaseEstimator):
    """An estimator to be given what is read."""


X = np.arange(24.0).reshape(4, 3, 2)
Y = ["a", "b", "a", "b"]


def test_seeds_follow_the_random_state() -> None:
    assert draw_seeds(3) == draw_seeds(3)
    assert draw_seeds(3) == draw_seeds(np.random.RandomState(3))
    assert draw_seeds(3) != draw_seeds(4)
    assert draw_seeds(None) != draw_seeds(None)


def test_a_random_state_moves_on_from_fit_to_fit() -> None:
    state = np.random.RandomState(0)
    assert draw_seeds(state) != draw_seeds(state)


def test_rows_are_float32_and_the_estimator_knows_their_shape_and_classes() -> None:
    probe = Probe()
    rows = read_rows(probe, X, Y, None, None)
    assert rows.X.dtype == np.float32
    assert rows.X.shape == (4, 3, 2)
    assert probe.input_shape_ == (3, 2)
    assert probe.n_features_in_ == 3
    assert probe.classes_.tolist() == ["a", "b"]


def test_groups_go_with_their_rows() -> None:
    rows = read_rows(Probe(), X[::-1], Y, None, ["u", "v", "u", "w"])
    assert rows.groups is not None
    samples = rows.X[rows.places]
    by_value = {x[0, 0]: group for x, group in zip(samples, rows.groups, strict=True)}
    assert by_value == {0.0: 2, 6.0: 0, 12.0: 1, 18.0: 0}


def test_samples_stay_where_they_are() -> None:
    samples = X.astype(np.float32)
    assert np.shares_memory(read_rows(Probe(), samples, Y, None, None).X, samples)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (["u"], "must be 4 numbers"),
        (3, "must be 4 numbers"),
        (np.zeros((4, 2)), "must be 4 numbers"),
        (np.array([1, "u", None, 2], dtype=object), "1 of 4 .* first at position 2"),
    ],
)
def test_groups_that_are_not_one_a_sample_are_an_error(
    groups: object, message: str
) -> None:
    with pytest.raises(ValueError, match=f"'groups' given to Probe .*{message}"):
        read_rows(Probe(), X, Y, None, groups)


@pytest.mark.parametrize("shape", [(4, 0), (4, 3, 0), (4, 0, 2)])
def test_an_empty_axis_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"minimum of 1|must not have an axis of len"):
        read_rows(Probe(), np.empty(shape), Y, None, None)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_samples_that_float32_cannot_hold_are_an_error(bad: float) -> None:
    broken = X.copy()
    broken[1, 2, 1] = bad
    with pytest.raises(ValueError, match=r"contains (NaN|infinity)"):
        read_rows(Probe(), broken, Y, None, None)


def test_samples_of_another_shape_are_an_error_that_names_both() -> None:
    probe = Probe()
    read_rows(probe, X, Y, None, None)
    with pytest.raises(ValueError, match=r"shape \(3, 2\), as in fit. Got \(3, 1\)"):
        read_samples(probe, X[:, :, :1])


@pytest.mark.parametrize(("X_val", "y_val"), [(X, None), (None, Y)])
def test_half_of_the_validation_rows_is_an_error(X_val: object, y_val: object) -> None:
    probe = Probe()
    read_rows(probe, X, Y, None, None)
    with pytest.raises(ValueError, match=r"must be given together. Got ._val alone"):
        read_validation_rows(probe, X_val, y_val)


def test_shares_of_classes_count_weights_and_factors() -> None:
    rows = Rows(X, np.array([0, 0, 1, 1]), np.array([1.0, 2.0, 3.0, 3.0]))
    assert rows.compute_class_shares(np.array([2.0, 1.0])).tolist() == [0.5, 0.5]


def test_rows_held_out_are_counted_and_split_by_member() -> None:
    numbers = np.arange(40, dtype=np.float32)[:, None]
    rows = Rows(numbers, np.arange(40) % 2, np.arange(40.0) + 1)
    validation = hold_out_rows(rows, 0.25, seed=0, n_members=4)
    assert validation is not None
    parts = validation.split_by_member()
    assert [member for member, _ in parts] == [0, 1, 2, 3]
    assert sorted(x for _, part in parts for x in part.X[:, 0]) == list(range(40))
    for _, part in parts:
        assert np.array_equal(part.weight, part.X[:, 0] + 1)
        assert np.array_equal(part.codes, part.X[:, 0] % 2)
    codes, weight = validation.list_validated()
    assert np.array_equal(codes, (weight - 1) % 2)
    assert sorted(weight - 1) == list(range(40))


def test_validation_rows_given_are_those_of_all_members() -> None:
    probe = Probe()
    read_rows(probe, X, Y, None, None)
    [(member, part)] = read_validation_rows(probe, X[:3], Y[:3]).split_by_member()
    assert member is None
    assert np.array_equal(part.X, X[:3])
    assert part.codes.tolist() == [0, 1, 0]


LABELS = np.array(["a", "b"])


CODES = np.array([0, 0, 0, 1])


def compute_factors(
    class_weight: dict[str, float] | str, weight: np.ndarray | None = None
) -> np.ndarray:
    weight = np.ones(4) if weight is None else weight
    rows = Rows(np.zeros((4, 1), np.float32), CODES, weight)
    return compute_class_factors(class_weight, LABELS, rows, "Probe")


def test_labels_of_rows_without_weight_are_no_classes() -> None:
    y = np.array(["c", "a", "b", "c"])
    classes, codes = encode_labels(y, np.array([1.0, 0, 2, 1]), "Probe")
    assert classes.tolist() == ["b", "c"]
    assert codes[[0, 2, 3]].tolist() == [1, 0, 1]


def test_one_class_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match=r"two classes\. Got one class, 'a', instead"):
        encode_labels(np.array(["a", "b"]), np.array([1.0, 0]), "Probe")


def test_an_unknown_validation_label_is_an_error_that_names_it() -> None:
    probe = Probe()
    read_rows(probe, X, Y, None, None)
    with pytest.raises(ValueError, match=r"of y, which are \['a', 'b'\]. Got \['c'\]"):
        read_validation_rows(probe, X[:2], ["b", "c"])


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
    assert compute_factors("balanced") == pytest.approx(expected)


def test_balanced_factors_make_weighted_classes_weigh_the_same() -> None:
    weight = np.array([1.0, 2.0, 3.0, 0.5])
    factors = compute_factors("balanced", weight)
    totals = np.bincount(CODES, weight * factors[CODES])
    assert totals == pytest.approx([3.25, 3.25])


def test_factors_by_label_default_to_one() -> None:
    factors = compute_factors({"b": 3.0})
    assert factors[1] / factors[0] == 3


@pytest.mark.parametrize(
    "class_weight",
    [{"a": -1.0}, {"a": 0.0, "b": 0.0}, {"a": np.nan}, {"a": np.inf}, {"b": -np.inf}],
)
def test_factors_that_are_no_weights_are_an_error(
    class_weight: dict[str, float],
) -> None:
    with pytest.raises(ValueError, match="'class_weight' parameter of Probe must"):
        compute_factors(class_weight)


def fit_stack(
    shape: tuple[int, ...], n_layers: int | None, n_parts: int | None
) -> PlugStackClassifier:
    X = np.random.default_rng(0).normal(size=(30, *shape))
    stack = PlugStackClassifier(n_layers=n_layers, n_parts=n_parts, random_state=0)
    return stack.fit(X, np.arange(30) % 2)


@pytest.mark.parametrize(
    ("shape", "n_layers", "n_parts", "expected"),
    [
        ((4, 3, 6), None, None, (4, 3)),
        ((4, 3, 6), 4, 3, (4, 3)),
        ((4, 6), None, None, (4, 1)),
        ((72,), None, None, (1, 1)),
        ((72,), 4, None, (4, 1)),
        ((72,), 4, 3, (4, 3)),
    ],
)
def test_axes_are_layers_parts_and_units(
    shape: tuple[int, ...],
    n_layers: int | None,
    n_parts: int | None,
    expected: tuple[int, int],
) -> None:
    assert fit_stack(shape, n_layers, n_parts).weights_.shape == expected


@pytest.mark.parametrize(
    ("shape", "n_layers", "n_parts", "message"),
    [
        ((72,), 5, None, r"must divide the 72 features of X. Got 5 and 1"),
        ((4, 18), 3, None, r"'n_layers' .* None or 4, as in X. Got 3 instead"),
        ((4, 18), None, 2, r"'n_parts' .* None or 1, as in X. Got 2 instead"),
        ((2, 2, 3, 6), None, None, r"X given to Plug\w+ must be \(n, layers, parts, h"),
    ],
)
def test_what_does_not_fit_is_an_error(
    shape: tuple[int, ...], n_layers: int | None, n_parts: int | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fit_stack(shape, n_layers, n_parts)


@pytest.mark.parametrize(
    "classifier", [PlugCNNClassifier, PlugMLPClassifier, PlugStackClassifier]
)
def test_activations_of_tokens_are_refused_with_what_reads_them(
    classifier: type,
) -> None:
    y = np.arange(40) % 2
    X = np.random.default_rng(0).normal(size=(40, 2, 1, 4))
    tokens = np.empty(40, dtype=object)
    for row in range(40):
        tokens[row] = np.zeros((2 + row % 2, 2, 1, 4))
    message = f"X given to {classifier.__name__} .* PlugTokenClassifier reads .*pooling"
    for wrong in (tokens, list(tokens)):
        with pytest.raises(ValueError, match=message):
            classifier().fit(wrong, y)
    probe = classifier(random_state=0)
    if classifier is not PlugStackClassifier:
        probe.set_params(max_epochs=1)
    with pytest.raises(ValueError, match=message):
        probe.fit(list(X), y).predict(tokens)


@pytest.mark.parametrize(
    "kind", [PlugMLPClassifier, PlugCNNClassifier, PlugStackClassifier]
)
@pytest.mark.parametrize("is_array", [True, False])
def test_labels_of_tokens_are_refused(kind: type[Any], is_array: bool) -> None:
    X = np.random.default_rng(0).normal(size=(4, 3, 6))
    y: Any = [[0], [1, 0], [1], [0, 0, 1]]
    if is_array:
        y = np.array(y, dtype=object)
    with pytest.raises(ValueError, match="PlugTokenClassifier takes labels of tokens"):
        kind().fit(X, y)
