import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from plug_sklearn.classifiers._stratification import gather_samples, spread_ranks


def test_rows_without_a_sample_are_samples_of_their_own_class() -> None:
    codes = np.array([1, 0, 1, 2])
    for sample_of_row in (None, np.arange(4)):
        samples = gather_samples(codes, sample_of_row)
        assert samples.have_one_class
        assert samples.strata.tolist() == codes.tolist()


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
    samples = gather_samples(codes, sample_of_row)
    counts = [sum(code in own for own in classes) for code in range(n_classes)]
    expected = [min(own, key=lambda code: (counts[code], code)) for own in classes]
    assert samples.strata.tolist() == expected
    for sample, own in enumerate(classes):
        assert samples.list_codes(sample).tolist() == own


def test_samples_are_ranked_by_their_heaviest_class_and_its_share() -> None:
    codes = np.array([0, 1, 0, 1, 0, 1, 0, 1])
    weight = np.array([9.0, 1.0, 2.0, 8.0, 6.0, 4.0, 18.0, 2.0])
    samples = gather_samples(codes, np.repeat(np.arange(4), 2), weight)
    # Class 0 at 0.9, class 1 at 0.8, class 0 at 0.6, and class 0 at 0.9 again.
    assert samples.ranks.tolist() == [1, 2, 0, 1]


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
