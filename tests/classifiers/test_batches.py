import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plug_sklearn.classifiers._batches import (
    NO_CLASS,
    Batches,
    MemberRows,
    Rows,
    join_probes,
)


def put_on_cpu(
    X: np.ndarray,
    codes: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    places: np.ndarray | None = None,
) -> MemberRows:
    n_rows = len(X if places is None else places)
    codes = np.zeros(n_rows, np.intp) if codes is None else codes
    rows = Rows(X, codes, np.ones(n_rows) if weight is None else weight, None, places)
    return rows.put_on_device(np.ones(2), torch.device("cpu"))


def number_rows(n_rows: int, chosen: np.ndarray | None = None) -> MemberRows:
    rows = put_on_cpu(np.arange(n_rows)[:, None])
    return rows.choose(np.ones((1, n_rows), bool) if chosen is None else chosen)


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


@given(n_rows=st.integers(2, 40), batch_size=st.integers(2, 20))
def test_batches_in_one_place_hold_the_same_rows(n_rows: int, batch_size: int) -> None:
    chosen = np.ones((3, n_rows), bool)
    one_by_one, in_one_place = (number_rows(n_rows, chosen) for _ in range(2))
    in_one_place.reuse_memory(batch_size)
    both = [
        Batches(rows, batch_size, torch.Generator().manual_seed(0))
        for rows in (one_by_one, in_one_place)
    ]
    places = set()
    for (expected, _), (found, _) in zip(*both, strict=True):
        assert torch.equal(found, expected)
        places.add(found.data_ptr())
    assert len(places) == 1


def test_rows_that_are_float32_stay_where_they_are() -> None:
    X = np.zeros((3, 2), np.float32)
    assert np.shares_memory(put_on_cpu(X).X.numpy(), X)
    X.flags.writeable = False
    assert not np.shares_memory(put_on_cpu(X).X.numpy(), X)


@pytest.mark.parametrize(
    ("places", "expected"), [(None, False), ([1, 2], True), ([0, 1], False)]
)
def test_rows_are_equal_where_their_samples_are(
    places: list[int] | None, expected: bool
) -> None:
    X = np.array([[0.0, 1.0], [2.0, 1.0], [2.0, 1.0]])
    chosen = None if places is None else np.array(places)
    assert put_on_cpu(X, places=chosen).are_equal() is expected


def test_weights_of_rows_average_one() -> None:
    rows = put_on_cpu(np.zeros((3, 1)), weight=np.array([1.0, 2.0, 6.0]))
    assert rows.weight.tolist() == pytest.approx([1 / 3, 2 / 3, 2])


def test_rows_of_probes_that_are_kept_are_their_own() -> None:
    parts = [
        put_on_cpu(
            np.zeros((6, 1)), np.arange(6) % 2, np.arange(1.0, 7) + probe
        ).choose(np.arange(12).reshape(2, 6) % 3 != probe)
        for probe in range(3)
    ]
    kept = join_probes(parts, torch.arange(18.0)[:, None]).keep_probes(
        [True, False, True]
    )
    samples, (codes, weight) = kept[slice(None)]
    expected = [part[slice(None)][1] for part in (parts[0], parts[2])]
    assert torch.equal(codes, torch.cat([own for own, _ in expected], dim=1))
    assert torch.equal(weight, torch.cat([own for _, own in expected], dim=1))
    positions = [parts[0].positions, parts[2].positions + 12]
    assert torch.equal(samples[..., 0], torch.cat(positions, dim=1).float())
    assert kept.n_probes == 2
