import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from plug_sklearn.classifiers._rows import (
    NO_CLASS,
    Batches,
    MemberRows,
    Rows,
    find_distinct_rows,
)


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
    distinct = find_distinct_rows(X, codes, weight, groups)
    i = distinct.index
    found = tally_in_plain_python(X[i], codes[i], distinct.weight, groups[i])
    assert found == tally_in_plain_python(X, codes, weight, groups)
    assert len(found) == len(i)


@given(st.permutations(range(12)))
def test_order_of_the_rows_does_not_change_the_distinct_rows(order: list[int]) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(12, 2, 3)).astype(np.float32)
    X[4] = X[7]
    codes, weight = np.arange(12) % 2, np.arange(12.0)
    codes[4] = codes[7]
    one = find_distinct_rows(X, codes, weight)
    other = find_distinct_rows(X[order], codes[order], weight[order])
    assert np.array_equal(X[one.index], X[order][other.index])
    assert np.array_equal(one.weight, other.weight)


def number_rows(n_rows: int, chosen: np.ndarray | None = None) -> MemberRows:
    rows = Rows(np.arange(n_rows)[:, None], np.zeros(n_rows, np.intp), np.ones(n_rows))
    return MemberRows(rows, np.ones((1, n_rows), bool) if chosen is None else chosen)


def take_batches(n_rows: int, batch_size: int, shuffled: bool) -> list[list[int]]:
    generator = torch.Generator().manual_seed(0) if shuffled else None
    batches = Batches(number_rows(n_rows), batch_size, generator)
    taken = [x[:, 0, 0].int().tolist() for x, _ in batches]
    assert len(taken) == len(batches)
    return taken


@given(st.integers(1, 70), st.integers(2, 20), st.booleans())
def test_batches_hold_each_row_once(
    n_rows: int, batch_size: int, shuffled: bool
) -> None:
    batches = take_batches(n_rows, batch_size, shuffled)
    joined = [row for batch in batches for row in batch]
    assert sorted(joined) == list(range(n_rows))
    assert shuffled or joined == sorted(joined)


@given(st.integers(2, 70), st.integers(2, 20))
def test_no_batch_holds_one_row(n_rows: int, batch_size: int) -> None:
    sizes = [len(batch) for batch in take_batches(n_rows, batch_size, shuffled=True)]
    assert min(sizes) > 1
    assert max(sizes) <= batch_size + 1


def test_each_iteration_shuffles_anew() -> None:
    batches = Batches(number_rows(50), 50, torch.Generator().manual_seed(0))
    (first, _), (second, _) = next(iter(batches)), next(iter(batches))
    assert not torch.equal(first, second)


@given(
    counts=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    batch_size=st.integers(2, 7),
)
def test_each_member_gets_its_own_rows_once_an_epoch(
    counts: list[int], batch_size: int
) -> None:
    chosen = np.zeros((len(counts), 20), bool)
    for own, count in zip(chosen, counts, strict=True):
        own[np.random.default_rng(count).permutation(20)[:count]] = True
    rows = number_rows(20, chosen)
    total = 0.0
    taken: list[list[int]] = [[] for _ in counts]
    for x, (codes, weight) in Batches(rows, batch_size, torch.Generator()):
        for member, own in enumerate(taken):
            counted = codes[:, member] != NO_CLASS
            own += x[counted, member, 0].int().tolist()
            assert chosen[member, x[:, member, 0].int()].all()
            assert not weight[~counted, member].any()
        total += float(weight.sum())
    assert [sorted(own) for own in taken] == [
        np.flatnonzero(own).tolist() for own in chosen
    ]
    assert total == pytest.approx(max(counts) * len(counts))


def test_rows_that_are_float32_stay_where_they_are() -> None:
    X = np.zeros((3, 2), np.float32)
    assert np.shares_memory(Rows(X).X.numpy(), X)
    X.flags.writeable = False
    assert not np.shares_memory(Rows(X).X.numpy(), X)


def test_weights_of_rows_average_one() -> None:
    rows = Rows(np.zeros((3, 1)), np.zeros(3, np.intp), np.array([1.0, 2.0, 6.0]))
    assert rows.weight is not None
    assert rows.weight.tolist() == pytest.approx([1 / 3, 2 / 3, 2])
