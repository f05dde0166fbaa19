"""A store whose files were changed by something else than the store."""

import sqlite3
import tempfile
import warnings
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from _stored import HIDDEN_SIZE, TABLES, VECTORS, digests, make_states, read
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from plug_sklearn.embedding import ActivationStore, StoreError

NUMBERS = range(4)
#: Two records a prompt: other layers were asked for later.
WRITES = ([0, 1], [2])
LAYERS = [0, 1, 2]
N_RECORDS = len(NUMBERS) * len(WRITES)
Change = Callable[[Path], None]

places = st.integers(0, 2**20)
values = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-5, 5),
    st.binary(max_size=40),
    st.text(max_size=9),
    st.floats(),
)


def flip(name: str, place: int, flipped: int) -> Change:
    def change(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[place % len(data)] ^= flipped
        (folder / name).write_bytes(data)

    return change


def edit(table: str, column: str, place: int, value: object) -> Change:
    """Set a column of one row, where the table's constraints allow it."""

    def change(folder: Path) -> None:
        with closing(sqlite3.connect(folder / TABLES)) as connection, connection:
            keys = "settings, digest, layout" if table == "records" else "rowid"
            rows = connection.execute(f"SELECT {keys} FROM {table}").fetchall()
            row = rows[place % len(rows)]
            connection.execute(
                f"UPDATE OR IGNORE {table} SET {column} = ? "
                f"WHERE ({keys}) = ({', '.join('?' * len(row))})",
                (value, *row),
            )

    return change


def swap_vectors(one: int, other: int) -> Change:
    """Let two records say that they are where the other one is."""

    def change(folder: Path) -> None:
        with closing(sqlite3.connect(folder / TABLES)) as connection, connection:
            starts = connection.execute("SELECT start FROM records").fetchall()
            (a,), (b,) = starts[one % len(starts)], starts[other % len(starts)]
            connection.execute(
                "UPDATE records SET start = CASE start WHEN ? THEN ? ELSE ? END "
                "WHERE start IN (?, ?)",
                (a, b, a, a, b),
            )

    return change


columns = st.sampled_from(
    [
        *(("records", c) for c in ("start", "size", "layout", "checksum", "digest")),
        ("layouts", "description"),
    ]
)
CHANGES = st.one_of(
    st.builds(flip, st.just(VECTORS), places, st.integers(1, 255)),
    st.builds(lambda where, *how: edit(*where, *how), columns, places, values),
    st.builds(swap_vectors, places, places),
)


def write_all(store: ActivationStore) -> bytes:
    key = store.register("model")
    for layers in WRITES:
        states = make_states(NUMBERS, layers)
        store.write(key, digests(NUMBERS), layers, ["rs"], states)
    return key


def assert_right_or_missing(store: ActivationStore, key: bytes) -> np.ndarray:
    """What is held must be right; gives what is missing."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "[0-9]+ damaged records")
        found, missing = read(store, key, NUMBERS, LAYERS)
    expected = np.where(missing[..., None], np.nan, make_states(NUMBERS, LAYERS))
    np.testing.assert_array_equal(found, expected)
    return missing


def write_again(store: ActivationStore, key: bytes) -> None:
    """What is missing can be claimed, and written."""
    missing = assert_right_or_missing(store, key)
    mine = store.claim(key, digests(NUMBERS), LAYERS, ["rs"])
    np.testing.assert_array_equal(mine, missing.any(axis=(1, 2)))
    states = make_states(NUMBERS, LAYERS)
    store.write(key, digests(NUMBERS), LAYERS, ["rs"], states)
    _, missing = read(store, key, NUMBERS, LAYERS)
    assert not missing.any()


@settings(max_examples=30)
@given(st.lists(CHANGES, min_size=1, max_size=3), st.booleans())
def test_changed_records_are_missing_or_right_and_can_be_written_again(
    changes: list[Change], compacts: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = ActivationStore(folder)
        key = write_all(store)
        for change in changes:
            change(Path(folder))
        missing = assert_right_or_missing(store, key)
        if compacts:
            store.compact()
            np.testing.assert_array_equal(assert_right_or_missing(store, key), missing)
        write_again(store, key)
        store.compact()
        assert not read(store, key, NUMBERS, LAYERS)[1].any()
        store.close()


@settings(max_examples=40)
@given(st.integers(0, 2**20), st.integers(1, 255), st.integers(1, 600))
@example(place=3553, flipped=128, length=1)  # the name of a table is not UTF-8
def test_damaged_tables_give_an_error_or_right_states(
    place: int, flipped: int, length: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with ActivationStore(folder) as store:
            key = write_all(store)
        path = Path(folder) / TABLES
        data = bytearray(path.read_bytes())
        place %= len(data)
        for each in range(place, min(place + length, len(data))):
            data[each] ^= flipped
        path.write_bytes(data)
        try:
            with ActivationStore(folder) as store:
                assert_right_or_missing(store, key)
                store.register("model")
                write_again(store, key)
                store.contents()
                store.compact()
                assert_right_or_missing(store, key)
        except StoreError as error:
            assert folder in str(error)


@pytest.mark.parametrize("poolings", [None, ("last",)])
@pytest.mark.parametrize(
    ("right", "damaged"),
    [
        ('"hidden_size": 8', '"hidden_size": 0'),
        ('"hidden_size": 8', '"hidden_size": "8"'),
        ('"hidden_size": 8', '"hidden_size": [8]'),
        ('"hidden_size": 8', '"hidden_size": -8'),
        ('[0, "rs"', '[[0], "rs"'),
        ('[0, "rs"', '[0, {"rs": 0}'),
    ],
)
def test_layout_of_wrong_values_is_missing(
    tmp_path: Path, poolings: tuple[str] | None, right: str, damaged: str
) -> None:
    store = ActivationStore(tmp_path)
    key, slots = store.register("model"), ([0], ["rs"])
    states = make_states([1], [0])
    item = [states[0][None]] if poolings is None else states
    store.write(key, digests([1]), *slots, item, poolings=poolings)
    with closing(sqlite3.connect(tmp_path / TABLES)) as connection, connection:
        connection.execute(
            "UPDATE layouts SET description = replace(description, ?, ?)",
            (right, damaged),
        )
    out = np.empty(1, dtype=object) if poolings is None else np.empty_like(states)
    with pytest.warns(UserWarning, match="1 damaged records"):
        missing = store.read_into(key, digests([1]), *slots, out, poolings=poolings)
    assert missing.all()
    assert store.claim(key, digests([1]), *slots, poolings=poolings).all()
    store.release(key, digests([1]))
    store.compact()
    assert len(store) == 0


def test_deleting_a_model_keeps_records_whose_description_is_damaged(
    tmp_path: Path,
) -> None:
    """Their descriptions name the model, and do not belong to their keys."""
    with ActivationStore(tmp_path) as store:
        write_all(store)
        others = range(8)
        for number in others:
            key = store.register("other", number=number)
            store.write(key, digests([0]), [0], ["rs"], make_states([0], [0]))
            false = f'{{"model":"model","settings":{{"number":{number}}}}}'
            edit("settings", "description", 1 + number, false.encode())(tmp_path)
        assert store.delete("model") == len(NUMBERS)
        for number in others:
            key = store.register("other", number=number)
            assert not read(store, key, [0], [0])[1].any()


@settings(max_examples=8)
@given(st.one_of(values, st.just(b'{"model": 7}')))
def test_damaged_description_is_not_listed_until_it_is_registered_again(
    value: object,
) -> None:
    with tempfile.TemporaryDirectory() as folder, ActivationStore(folder) as store:
        key = write_all(store)
        edit("settings", "description", 0, value)(Path(folder))
        assert store.contents() == []
        assert store.delete("model") == 0
        assert not assert_right_or_missing(store, key).any()
        assert store.register("model") == key
        assert [held.model for held in store.contents()] == ["model"]
        assert store.delete("model") == len(NUMBERS)


@settings(max_examples=8)
@given(values)
def test_damaged_claim_is_no_one_s(owner: object) -> None:
    with tempfile.TemporaryDirectory() as folder, ActivationStore(folder) as store:
        key = store.register("model")
        assert store.claim(key, digests([0]), [0], ["rs"]).all()
        with closing(sqlite3.connect(Path(folder) / TABLES)) as connection, connection:
            connection.execute("UPDATE claims SET owner = ?", (owner,))
        store.wait(key, digests([0]))
        assert store.claim(key, digests([0]), [0], ["rs"]).all()


@pytest.mark.parametrize("column", ["dtype", "generation", "n_bytes"])
@pytest.mark.parametrize("value", [b"what", -1, 2**40])
def test_damaged_table_of_the_store_is_told_or_missing(
    tmp_path: Path, column: str, value: object
) -> None:
    with ActivationStore(tmp_path) as store:
        key = write_all(store)
    edit("store", column, 0, value)(tmp_path)
    try:
        with ActivationStore(tmp_path) as store:
            assert_right_or_missing(store, key)
            write_again(store, key)
    except StoreError as error:
        assert "damaged" in str(error)


@pytest.mark.parametrize("hidden_size", [1, HIDDEN_SIZE - 1, HIDDEN_SIZE + 1])
def test_record_of_another_size_is_missing(tmp_path: Path, hidden_size: int) -> None:
    with ActivationStore(tmp_path) as store:
        key = store.register("model")
        states = make_states([0], hidden_size=hidden_size)
        store.write(key, digests([0]), [0, 1], ["rs"], states)
        assert read(store, key, [0])[1].all()


def test_damage_is_counted_in_one_warning(tmp_path: Path) -> None:
    with ActivationStore(tmp_path) as store:
        key = write_all(store)
        (tmp_path / VECTORS).write_bytes(bytes((tmp_path / VECTORS).stat().st_size))
        with pytest.warns(UserWarning, match=f"^{N_RECORDS} damaged") as caught:
            assert read(store, key, NUMBERS, LAYERS)[1].all()
    assert len(caught) == 1


@pytest.mark.parametrize("column", ["layout", "start"])
def test_columns_that_begin_with_the_right_number_are_damaged(
    tmp_path: Path, column: str
) -> None:
    with ActivationStore(tmp_path) as store:
        key = write_all(store)
    with closing(sqlite3.connect(tmp_path / TABLES)) as connection, connection:
        connection.execute(
            f"UPDATE records SET {column} = {column} || 'abc' WHERE digest = ?",
            digests([1]),
        )
    with ActivationStore(tmp_path) as store:
        with pytest.warns(UserWarning, match=f"^{len(WRITES)} damaged"):
            missing = read(store, key, NUMBERS, LAYERS)[1]
        assert missing.any(axis=(1, 2)).tolist() == [False, True, False, False]
        store.compact()
        # Nothing is left of them, of which a warning would have to be issued.
        assert_array_equal(read(store, key, NUMBERS, LAYERS)[1], missing)
