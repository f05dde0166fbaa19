import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.base import BaseEstimator
from sklearn.utils.class_weight import compute_class_weight

from plug_sklearn.classifiers._data import (
    Rows,
    compute_class_factors,
    draw_seeds,
    encode_labels,
    hold_out_rows,
    merge_equal_rows,
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


def tally_in_plain_python(
    X: np.ndarray, codes: np.ndarray, weight: np.ndarray, groups: np.ndarray
) -> dict[tuple[float, ...], float]:
    tally: dict[tuple[float, ...], float] = {}
    for x, code, w, group in zip(X.tolist(), codes, weight, groups, strict=True):
        if w > 0:
            key = (*x, code, group)
            tally[key] = tally.get(key, 0) + w
    return tally


@given(st.data(), st.integers(1, 30))
def test_distinct_rows_are_a_tally(data: st.DataObject, n: int) -> None:
    small = st.sampled_from([-1.0, -0.0, 0.0, 2.5])
    X = data.draw(arrays(np.float32, (n, 2), elements=small))
    codes, groups = data.draw(arrays(np.intp, (2, n), elements=st.integers(0, 1)))
    weight = data.draw(arrays(float, n, elements=st.sampled_from([0.0, 1.0, 2.5])))
    assume(weight.any())
    i, summed, _ = merge_equal_rows(X, codes, weight, groups)
    found = tally_in_plain_python(X[i], codes[i], summed, groups[i])
    assert found == tally_in_plain_python(X, codes, weight, groups)
    assert len(found) == len(i)


@given(st.permutations(range(12)))
def test_order_of_the_rows_does_not_change_the_distinct_rows(order: list[int]) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(12, 2, 3)).astype(np.float32)
    X[4] = X[7]
    codes, weight = np.arange(12) % 2, np.arange(12.0)
    codes[4] = codes[7]
    one = merge_equal_rows(X, codes, weight)
    other = merge_equal_rows(X[order], codes[order], weight[order])
    assert np.array_equal(X[one[0]], X[order][other[0]])
    assert np.array_equal(one[1], other[1])
