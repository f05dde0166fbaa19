import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from plug_sklearn.classifiers._splitting import (
    MIN_ROWS,
    choose_validation_rows,
    hash_arrays,
    merge_equal_rows,
    rank_samples,
    spread_ranks,
)

TEXTS = st.lists(
    st.lists(st.sampled_from([-0.0, 0.0, 1.0, 2.0]), min_size=1, max_size=4),
    min_size=1,
    max_size=12,
)


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
        n_chosen = chosen[0, codes == code].sum()
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
    chosen = choose_validation_rows(codes, fraction, rng(), groups, n_members=3)
    assert chosen is not None
    for own in chosen:
        assert not set(groups[own]) & set(groups[~own])
        assert set(codes[~own]) == {0, 1}


def test_groups_are_chosen_to_the_fraction_of_each_class() -> None:
    groups = np.repeat(np.arange(50), 4)
    codes = groups % 2
    chosen = choose_validation_rows(codes, 0.2, rng(), groups)
    assert chosen is not None
    assert codes[chosen[0]].mean() == pytest.approx(0.5, abs=0.1)
    assert chosen.mean() == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize(
    "groups", [np.zeros(40, int), np.arange(40) % 2], ids=["one group", "one a class"]
)
def test_no_rows_are_chosen_where_training_would_lose_a_class(
    groups: np.ndarray,
) -> None:
    assert choose_validation_rows(np.arange(40) % 2, 0.2, rng(), groups) is None


@given(sizes=st.lists(st.integers(10, 40), min_size=2, max_size=4))
def test_five_members_choose_each_row_once_as_near_as_can_be(sizes: list[int]) -> None:
    codes = np.repeat(np.arange(len(sizes)), sizes)
    chosen = choose_validation_rows(codes, 0.2, rng(), n_members=5)
    assert chosen is not None
    for code, size in enumerate(sizes):
        own = chosen[:, codes == code]
        assert (own.sum(axis=1) == round(size / 5)).all()
        assert abs(own.sum(axis=0) - 1).sum() <= 5


def test_members_choose_other_groups_while_there_are_any() -> None:
    groups = np.arange(100) // 10
    codes = np.arange(100) % 2
    chosen = choose_validation_rows(codes, 0.2, rng(), groups, n_members=5)
    assert chosen is not None
    assert (chosen.sum(axis=0) == 1).all()


def test_a_group_that_training_needs_is_chosen_by_no_member() -> None:
    groups = np.arange(60) // 20
    codes = np.where(groups == 2, 1, np.arange(60) % 2 * (groups == 1))
    codes[groups == 1] = 0
    chosen = choose_validation_rows(codes, 0.2, rng(), groups, n_members=4)
    assert chosen is not None
    assert set(groups[chosen.any(axis=0)]) == {0, 1}


def test_the_seed_decides_the_choice() -> None:
    codes = np.arange(100) % 2
    one, same, other = (
        choose_validation_rows(codes, 0.2, rng(seed)) for seed in (0, 0, 1)
    )
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def label_samples(
    classes: list[set[int]],
) -> tuple[np.ndarray, np.ndarray]:
    """Give class codes and samples of the rows of samples with sets of classes."""
    codes = np.array([code for own in classes for code in sorted(own)])
    return codes, np.repeat(np.arange(len(classes)), [len(own) for own in classes])


@given(
    classes=st.lists(
        st.sets(st.integers(0, 4), min_size=1), min_size=MIN_ROWS, max_size=60
    ),
    fraction=st.floats(0.05, 0.6),
    n_members=st.integers(1, 5),
)
def test_no_sample_is_on_both_sides_and_training_has_every_class(
    classes: list[set[int]], fraction: float, n_members: int
) -> None:
    codes, sample_of_row = label_samples(classes)
    _, codes = np.unique(codes, return_inverse=True)
    chosen = choose_validation_rows(
        codes, fraction, rng(), n_members=n_members, sample_of_row=sample_of_row
    )
    assert chosen is not None
    for own in chosen:
        assert own.any()
        assert not set(sample_of_row[own]) & set(sample_of_row[~own])
        assert set(codes[~own]) == set(codes)


def test_a_class_that_samples_share_with_rarer_classes_is_on_both_sides() -> None:
    # Class 0 is in samples of classes 1 and 2 alone, which could all be chosen.
    classes = [{0, 1}, {1}, {0, 2}, {2}, *[{3}] * 30]
    codes, sample_of_row = label_samples(classes)
    for seed in range(20):
        chosen = choose_validation_rows(
            codes, 0.5, rng(seed), sample_of_row=sample_of_row
        )
        assert chosen is not None
        assert set(codes[chosen[0]]) == set(codes[~chosen[0]]) == {0, 1, 2, 3}


@given(seed=st.integers(0, 100), n_classes=st.integers(2, 3))
def test_soft_labels_are_chosen_to_the_share_of_each_class(
    seed: int, n_classes: int
) -> None:
    shares = rng(seed).dirichlet(np.full(n_classes, 0.7), size=100).clip(1e-3)
    codes, sample_of_row = label_samples([set(range(n_classes))] * 100)
    chosen = choose_validation_rows(
        codes,
        0.2,
        rng(seed),
        n_members=5,
        sample_of_row=sample_of_row,
        weight=shares.ravel(),
    )
    assert chosen is not None
    assert (chosen.sum(axis=0) == 1).all()
    for own in chosen:
        held_out = shares[sample_of_row[own][::n_classes]]
        assert len(held_out) == 20
        largest_class = shares.sum(axis=0).argmax()
        assert held_out.mean(axis=0)[largest_class] == pytest.approx(
            shares.mean(axis=0)[largest_class], abs=0.08
        )


def test_few_samples_are_few_however_many_labels_they_have() -> None:
    codes, sample_of_row = label_samples([{0, 1}] * (MIN_ROWS - 1))
    assert (
        choose_validation_rows(codes, 0.2, rng(), sample_of_row=sample_of_row) is None
    )


def test_samples_of_one_label_are_chosen_as_rows_are() -> None:
    codes = np.arange(100) % 3
    as_rows, as_samples = (
        choose_validation_rows(
            codes, 0.2, rng(), n_members=5, sample_of_row=sample_of_row
        )
        for sample_of_row in (None, np.arange(100))
    )
    assert np.array_equal(as_rows, as_samples)


def test_samples_of_one_row_are_of_its_class() -> None:
    codes = np.array([1, 0, 1, 2])
    strata, _ = rank_samples(codes, np.arange(4))
    assert strata.tolist() == codes.tolist()


@given(st.data(), st.integers(1, 12), st.integers(1, 4))
def test_a_sample_belongs_to_the_rarest_of_its_classes(
    data: st.DataObject, n_samples: int, n_classes: int
) -> None:
    classes = [
        sorted(data.draw(st.sets(st.integers(0, n_classes - 1), min_size=1)))
        for _ in range(n_samples)
    ]
    codes = np.array([code for own in classes for code in own])
    sample_of_row = np.repeat(np.arange(n_samples), [len(own) for own in classes])
    strata, _ = rank_samples(codes, sample_of_row)
    counts = [sum(code in own for own in classes) for code in range(n_classes)]
    expected = [min(own, key=lambda code: (counts[code], code)) for own in classes]
    assert strata.tolist() == expected


def test_samples_are_ranked_by_their_heaviest_class_and_its_share() -> None:
    codes = np.array([0, 1, 0, 1, 0, 1, 0, 1])
    weight = np.array([9.0, 1.0, 2.0, 8.0, 6.0, 4.0, 18.0, 2.0])
    _, ranks = rank_samples(codes, np.repeat(np.arange(4), 2), weight)
    # Class 0 at 0.9, class 1 at 0.8, class 0 at 0.6, and class 0 at 0.9 again.
    assert ranks.tolist() == [1, 2, 0, 1]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 5))
def test_samples_in_succession_are_of_all_ranges_of_ranks(
    n_ranges: int, n_of_each: int, seed: int
) -> None:
    ranks = np.random.default_rng(seed).permutation(n_ranges * n_of_each)
    order = spread_ranks(ranks, n_ranges)
    assert sorted(order) == list(range(len(ranks)))
    for start in range(0, len(ranks), n_ranges):
        ranges = ranks[order[start : start + n_ranges]] // n_of_each
        assert sorted(ranges) == list(range(n_ranges))


def test_samples_of_one_rank_stay_in_order() -> None:
    assert spread_ranks(np.full(7, 3), 2).tolist() == list(range(7))


@given(TEXTS)
def test_arrays_have_equal_hashes_where_they_are_equal(
    texts: list[list[float]],
) -> None:
    digests = hash_arrays([np.array(text)[:, None] for text in texts])
    for text, digest in zip(texts, digests, strict=True):
        for other, other_digest in zip(texts, digests, strict=True):
            # -0.0 equals 0.0.
            assert (digest == other_digest) == (text == other)


def test_arrays_that_differ_in_the_middle_have_other_hashes() -> None:
    first = np.zeros((9, 3), dtype=np.float16)
    second = first.copy()
    second[4, 1] = 1
    digests = hash_arrays([first, second, first.astype(np.float64)])
    assert digests[0] != digests[1]
    assert digests[0] == digests[2]


def test_longer_arrays_have_larger_hashes() -> None:
    lengths = [300, 2, 70_000, 1, 255, 256]
    digests = hash_arrays([np.ones((length, 1)) for length in lengths])
    order = np.argsort([digest.tobytes() for digest in digests])
    assert [lengths[place] for place in order] == sorted(lengths)


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
    i, summed, *_ = merge_equal_rows(X, codes, weight, groups)
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
