import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plug_sklearn.classifiers._splitting import MIN_ROWS, choose_validation_rows


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=5),
    fraction=st.floats(0.01, 0.99),
)
def test_classes_of_two_rows_or_more_are_on_both_sides(
    sizes: list[int], fraction: float
) -> None:
    codes = np.repeat(np.arange(len(sizes)), sizes)
    chosen = choose_validation_rows(codes, fraction, rng())
    if len(codes) < MIN_ROWS:
        assert chosen is None
        return
    assert chosen is not None
    for code, size in enumerate(sizes):
        n_chosen = chosen[codes == code].sum()
        assert n_chosen == (size > 1) * np.clip(
            round(fraction * size), 1, max(1, size - 1)
        )


def test_no_rows_are_chosen_where_no_class_has_two() -> None:
    assert choose_validation_rows(np.arange(30), 0.2, rng()) is None


@given(
    n_groups=st.integers(4, 15),
    fraction=st.floats(0.1, 0.5),
    seed=st.integers(0, 100),
)
def test_no_group_is_on_both_sides(n_groups: int, fraction: float, seed: int) -> None:
    groups = rng(seed).integers(n_groups, size=100)
    groups[:n_groups] = np.arange(n_groups)
    codes = rng(seed + 1).integers(2, size=100)
    chosen = choose_validation_rows(codes, fraction, rng(), groups)
    assert chosen is not None
    assert not set(groups[chosen]) & set(groups[~chosen])
    assert set(codes[~chosen]) == {0, 1}


def test_groups_are_chosen_to_the_fraction_of_each_class() -> None:
    groups = np.repeat(np.arange(50), 4)
    codes = groups % 2
    chosen = choose_validation_rows(codes, 0.2, rng(), groups)
    assert chosen is not None
    assert codes[chosen].mean() == pytest.approx(0.5, abs=0.1)
    assert chosen.mean() == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize(
    "groups", [np.zeros(40, int), np.arange(40) % 2], ids=["one group", "one a class"]
)
def test_no_rows_are_chosen_where_training_would_lose_a_class(
    groups: np.ndarray,
) -> None:
    assert choose_validation_rows(np.arange(40) % 2, 0.2, rng(), groups) is None


def test_the_seed_decides_the_choice() -> None:
    codes = np.arange(100) % 2
    one, same, other = (
        choose_validation_rows(codes, 0.2, rng(seed)) for seed in (0, 0, 1)
    )
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
