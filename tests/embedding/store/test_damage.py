"""A store whose entries were changed by something else than the store."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import lmdb
import numpy as np
import pytest
from _stored import HIDDEN_SIZE, digests, make_states, read
from hypothesis import given, settings
from hypothesis import strategies as st

from plug_sklearn.embedding.store._store import ActivationStore

NUMBERS = range(4)
#: Two records a prompt: other layers were asked for later.
WRITES = ([0, 1], [2])
LAYERS = [0, 1, 2]
Entries = list[tuple[bytes, bytes]]
Change = Callable[[Entries], Entries]


def flip(place: int, byte: int, flipped: int) -> Change:
    def change(value: bytes) -> bytes:
        damaged = bytearray(value or b"\0")
        damaged[byte % len(damaged)] ^= flipped
        return bytes(damaged)

    return edit(place, change)


def cut(place: int, length: int) -> Change:
    return edit(place, lambda value: value[: length % max(1, len(value))])


def replace(place: int, value: bytes) -> Change:
    return edit(place, lambda _: value)


def lengthen(place: int, more: bytes) -> Change:
    return edit(place, lambda value: value + more)


def edit(place: int, change: Callable[[bytes], bytes]) -> Change:
    def change_one(entries: Entries) -> Entries:
        key, value = entries[place % len(entries)]
        return [*entries, (key, change(value))]

    return change_one


def swap(one: int, other: int) -> Change:
    def change(entries: Entries) -> Entries:
        key, value = entries[one % len(entries)]
        other_key, other_value = entries[other % len(entries)]
        return [*entries, (key, other_value), (other_key, value)]

    return change


def rename(place: int, end: bytes) -> Change:
    """Give a record another number, or one that is too short or too long."""

    def change(entries: Entries) -> Entries:
        left = list(entries)
        key, value = left.pop(place % len(left))
        return [*left, (key[:-2] + end, value)]

    return change


places = st.integers(0, len(NUMBERS) * len(WRITES) - 1)
some_bytes = st.binary(max_size=40)
CHANGES = st.one_of(
    st.builds(flip, places, st.integers(0, 2**16), st.integers(1, 255)),
    st.builds(cut, places, st.integers(0, 2**16)),
    st.builds(replace, places, some_bytes),
    st.builds(lengthen, places, some_bytes),
    st.builds(swap, places, places),
    st.builds(rename, places, st.binary(min_size=1, max_size=4)),
)


def change_entries(folder: str, prefix: bytes, change: Change) -> None:
    """Change the entries whose keys begin so; of two with one key, the last counts."""
    with lmdb.open(folder, lock=False) as file, file.begin(write=True) as transaction:
        found = [(k, v) for k, v in transaction.cursor() if k.startswith(prefix)]
        assert found
        for key, _ in found:
            transaction.delete(key)
        for key, value in dict(change(found)).items():
            transaction.put(key, value)


def write_all(store: ActivationStore) -> bytes:
    key = store.register("model")
    for layers in WRITES:
        states = make_states(NUMBERS, layers)
        store.write(key, digests(NUMBERS), layers, ["rs"], states)
    return key


def assert_right_or_missing(store: ActivationStore, key: bytes) -> np.ndarray:
    """What is held must be right; gives what is missing."""
    found, missing = read(store, key, NUMBERS, LAYERS)
    expected = np.where(missing[..., None], np.nan, make_states(NUMBERS, LAYERS))
    np.testing.assert_array_equal(found, expected)
    return missing


@settings(max_examples=60)
@given(st.lists(CHANGES, min_size=1, max_size=3), st.booleans())
def test_changed_records_are_missing_or_right_and_can_be_written_again(
    changes: list[Change], compacts: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with ActivationStore(folder) as store:
            key = write_all(store)
        for change in changes:
            change_entries(folder, b"record:", change)
        with ActivationStore(folder) as store:
            missing = assert_right_or_missing(store, key)
            if compacts:
                store.compact()
                np.testing.assert_array_equal(
                    assert_right_or_missing(store, key), missing
                )
            mine = store.claim(key, digests(NUMBERS), LAYERS, ["rs"])
            np.testing.assert_array_equal(mine, missing.any(axis=(1, 2)))
            states = make_states(NUMBERS, LAYERS)
            store.write(key, digests(NUMBERS), LAYERS, ["rs"], states)
            assert not assert_right_or_missing(store, key).any()
            store.compact()
            assert not assert_right_or_missing(store, key).any()
            assert store.contents()[0].n_prompts == len(NUMBERS)


@settings(max_examples=25)
@given(
    st.one_of(
        st.builds(flip, st.just(0), st.integers(0, 99), st.integers(1, 255)),
        st.builds(replace, st.just(0), some_bytes),
        st.builds(replace, st.just(0), st.just(b'{"model": 7}')),
    )
)
def test_damaged_description_is_not_listed_until_it_is_registered_again(
    change: Change,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with ActivationStore(folder) as store:
            key = write_all(store)
        change_entries(folder, b"settings:", change)
        with ActivationStore(folder) as store:
            assert store.contents() == []
            assert store.delete("model") == 0
            assert not assert_right_or_missing(store, key).any()
            assert store.register("model") == key
            assert [held.model for held in store.contents()] == ["model"]
            assert store.delete("model") == len(NUMBERS)


@settings(max_examples=25)
@given(some_bytes)
def test_damaged_claim_is_no_one_s(owner: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with ActivationStore(folder) as store:
            key = store.register("model")
            assert store.claim(key, digests([0]), [0], ["rs"]).all()
        change_entries(folder, b"claim:", replace(0, owner))
        with ActivationStore(folder) as store:
            store.wait(key, digests([0]))
            assert store.claim(key, digests([0]), [0], ["rs"]).all()


@pytest.mark.parametrize("hidden_size", [1, HIDDEN_SIZE - 1, HIDDEN_SIZE + 1])
def test_record_of_another_size_is_missing(tmp_path: Path, hidden_size: int) -> None:
    with ActivationStore(tmp_path / "other") as store:
        key = store.register("model")
        states = make_states([0], hidden_size=hidden_size)
        store.write(key, digests([0]), [0, 1], ["rs"], states)
    found: Entries = []
    change_entries(str(tmp_path / "other"), b"record:", lambda e: found.extend(e) or e)
    with ActivationStore(tmp_path / "store") as store:
        key = write_all(store)
    folder = str(tmp_path / "store")
    change_entries(folder, b"record:", lambda entries: [*entries, *found])
    with ActivationStore(folder) as store:
        missing = assert_right_or_missing(store, key)
        assert missing.sum() == 2
