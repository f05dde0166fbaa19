import numpy as np
import pytest
from sklearn.base import BaseEstimator

from plug_sklearn.classifiers._inputs import (
    LabelledRows,
    draw_seeds,
    hold_out_rows,
    read_rows,
    read_samples,
    read_validation_rows,
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
    "groups", [["u"], 3, np.zeros((4, 2)), np.array([1, "u", None, 2], dtype=object)]
)
def test_groups_that_are_not_one_a_sample_are_an_error(groups: object) -> None:
    with pytest.raises(ValueError, match="'groups' given to Probe must be 4 numbers"):
        read_rows(Probe(), X, Y, None, groups)


@pytest.mark.parametrize("shape", [(4, 0), (4, 3, 0), (4, 0, 2)])
def test_an_empty_axis_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"minimum of 1|must have no empty axis"):
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
    with pytest.raises(ValueError, match=r"must come together. Got ._val alone"):
        read_validation_rows(probe, X_val, y_val)


def test_shares_of_classes_count_weights_and_factors() -> None:
    rows = LabelledRows(X, np.array([0, 0, 1, 1]), np.array([1.0, 2.0, 3.0, 3.0]))
    assert rows.share_by_class(np.array([2.0, 1.0])).tolist() == [0.5, 0.5]


def test_rows_held_out_are_counted_and_split_by_member() -> None:
    numbers = np.arange(40, dtype=np.float32)[:, None]
    rows = LabelledRows(numbers, np.arange(40) % 2, np.arange(40.0) + 1)
    validation = hold_out_rows(rows, 0.25, seed=0, n_members=4)
    assert validation is not None
    parts = validation.split()
    assert [member for member, _ in parts] == [0, 1, 2, 3]
    assert sorted(x for _, part in parts for x in part.X[:, 0]) == list(range(40))
    for _, part in parts:
        assert np.array_equal(part.weight, part.X[:, 0] + 1)
        assert np.array_equal(part.codes, part.X[:, 0] % 2)
    codes, weight = validation.count()
    assert np.array_equal(codes, (weight - 1) % 2)
    assert sorted(weight - 1) == list(range(40))


def test_validation_rows_given_are_those_of_all_members() -> None:
    probe = Probe()
    read_rows(probe, X, Y, None, None)
    [(member, part)] = read_validation_rows(probe, X[:3], Y[:3]).split()
    assert member is None
    assert np.array_equal(part.X, X[:3])
    assert part.codes.tolist() == [0, 1, 0]
