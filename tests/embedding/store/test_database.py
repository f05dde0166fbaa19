import os
import resource
import sqlite3
import stat
import tempfile
from collections import Counter
from contextlib import ExitStack, closing
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from _stored import TABLES, VECTORS, digests, holds_right, make_states, read, started

from plug_sklearn.embedding import ActivationStore, StoreError

NOBODY = 65534


def write(store: ActivationStore, numbers: range, hidden_size: int = 8) -> bytes:
    key = store.register("model")
    states = make_states(numbers, hidden_size=hidden_size)
    store.write(key, digests(numbers), [0, 1], ["rs"], states)
    return key


def write_until_killed(pipe: Connection, path: Path) -> None:
    store = ActivationStore(path)
    for first in range(0, 100_000, 20):
        write(store, range(first, first + 20))
        pipe.send(first + 20)


def test_store_of_a_killed_process_holds_what_it_had_written(tmp_path: Path) -> None:
    moments = Random(0)
    n_written = 0
    for _ in range(20):
        with started(write_until_killed, tmp_path) as (process, pipe):
            for _ in range(moments.randint(1, 8)):
                pipe.recv()
            # The next transaction is under way for a random time.
            pipe.poll(moments.uniform(0, 0.003))
            process.kill()
            process.join()
            n_sent = 0
            while pipe.poll():
                try:
                    n_sent = pipe.recv()
                except EOFError:
                    break
            n_written = max(n_written, n_sent)
        with ActivationStore(tmp_path) as store:
            key = store.register("model")
            n_held = len(store)
            assert n_held >= n_written
            assert n_held % 20 == 0
            assert holds_right(store, key, range(n_held))
            rest = range(n_held + 40)
            mine = store.claim(key, digests(rest), [0, 1], ["rs"])
            assert np.flatnonzero(mine).tolist() == list(range(n_held, n_held + 40))


def test_killed_process_keeps_no_one_from_writing(tmp_path: Path) -> None:
    store = ActivationStore(tmp_path)
    store.create()
    with started(die_while_writing, tmp_path) as (process, pipe):
        assert pipe.recv() == "inside"
        process.kill()
        process.join()
        key = write(store, range(10))
    assert holds_right(store, key, range(10))
    assert len(store) == 10


def die_while_writing(pipe: Connection, path: Path) -> None:
    with sqlite3.connect(path / TABLES, isolation_level=None) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE store SET n_bytes = 1000000")
        with (path / VECTORS).open("ab") as file:
            file.write(bytes(10**6))
        pipe.send("inside")
        pipe.recv()


def test_who_waits_for_a_writer_says_so_when_patience_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plug_sklearn.embedding.store._database._PATIENCE", 0.01)
    store = ActivationStore(tmp_path)
    store.create()
    with started(die_while_writing, tmp_path) as (_, pipe):
        assert pipe.recv() == "inside"
        with pytest.raises(StoreError, match="another process has kept it locked"):
            write(store, range(10))
        assert len(store) == 0


def grow_until_told(pipe: Connection, path: Path, first: int) -> None:
    store = ActivationStore(path)
    pipe.send("ready")
    pipe.recv()
    end = first
    while not pipe.poll():
        write(store, range(end, end + 5))
        end += 5
    pipe.send(range(first, end))


def open_many_times(pipe: Connection, path: Path, readonly: bool) -> None:
    pipe.send("ready")
    pipe.recv()
    outcomes: Counter[str] = Counter()
    for _ in range(40):
        try:
            with ActivationStore(path, readonly=readonly) as store:
                is_right = holds_right(store, store.register("model"), range(200))
                outcomes["right" if is_right else "wrong"] += 1
        except StoreError as error:
            outcomes[str(error)] += 1
    pipe.send(outcomes)


def test_growing_store_is_opened_and_read_by_many_processes(tmp_path: Path) -> None:
    with ActivationStore(tmp_path) as store:
        key = write(store, range(200))
    with ExitStack() as stack:

        def start(*work: Any) -> Connection:  # noqa: ANN401 - a function and what it takes
            return stack.enter_context(started(*work))[1]

        writers = [start(grow_until_told, tmp_path, n * 10**5) for n in (1, 2)]
        openers = [start(open_many_times, tmp_path, n % 2 == 0) for n in range(4)]
        for pipe in (*writers, *openers):
            assert pipe.recv() == "ready"
        for pipe in (*writers, *openers):
            pipe.send("go")
        assert [pipe.recv() for pipe in openers] == [{"right": 40}] * 4
        for pipe in writers:
            pipe.send("stop")
        written = [pipe.recv() for pipe in writers]
    with ActivationStore(tmp_path) as store:
        assert all(len(numbers) for numbers in written)
        assert all(holds_right(store, key, numbers) for numbers in written)


def create_when_told(pipe: Connection, path: Path) -> None:
    pipe.send("ready")
    pipe.recv()
    store = ActivationStore(path)
    pipe.send(write(store, range(5)))
    pipe.recv()


def test_store_is_created_once_by_processes_that_come_at_once(tmp_path: Path) -> None:
    with ExitStack() as stack:
        work = (create_when_told, tmp_path / "store")
        pipes = [stack.enter_context(started(*work))[1] for _ in range(4)]
        for pipe in pipes:
            assert pipe.recv() == "ready"
        for pipe in pipes:
            pipe.send("go")
        keys = {pipe.recv() for pipe in pipes}
    with ActivationStore(tmp_path / "store") as store:
        assert holds_right(store, *keys, range(5))


def test_file_is_no_larger_than_its_data(tmp_path: Path) -> None:
    with ActivationStore(tmp_path) as store:
        write(store, range(10))
        assert store.n_bytes < 2**17


def fill_the_disk(pipe: Connection, path: Path) -> None:
    store = ActivationStore(path)
    key = write(store, range(10))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**18, limits[1]))
    errors = []
    for change in (lambda: write(store, range(10, 10_000)), store.compact):
        try:
            change()
        except StoreError as error:
            errors.append(str(error))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    pipe.send((errors, len(store), holds_right(store, key, range(10))))
    write(store, range(10_000))
    pipe.send(holds_right(store, key, range(10_000)))


def test_full_disk_is_told_and_loses_nothing(tmp_path: Path) -> None:
    with started(fill_the_disk, tmp_path) as (_, pipe):
        errors, n_prompts, is_right = pipe.recv()
        assert len(errors) == 1
        assert f"{str(tmp_path)!r}: the disk is full" in errors[0]
        assert "Free some disk space" in errors[0]
        assert n_prompts == 10
        assert is_right
        assert pipe.recv()


def compact_on_a_full_disk(pipe: Connection, path: Path) -> None:
    store = ActivationStore(path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**18, limits[1]))
    try:
        store.compact()
    except StoreError as error:
        pipe.send(str(error))


def test_compaction_without_room_keeps_what_was_held(tmp_path: Path) -> None:
    with ActivationStore(tmp_path) as store:
        key = write(store, range(100), hidden_size=600)
        with started(compact_on_a_full_disk, tmp_path) as (_, pipe):
            assert "the disk is full" in pipe.recv()
        assert not read(store, key, range(100), hidden_size=600)[1].any()
        store.compact()
        assert not read(store, key, range(100), hidden_size=600)[1].any()
    assert sorted(os.listdir(tmp_path)) == [TABLES, "claims.lock", "vectors-1.bin"]


def read_until_told(pipe: Connection, path: Path, readonly: bool) -> None:
    n_read = 0
    with ActivationStore(path, readonly=readonly) as store:
        key = store.register("model")
        pipe.send("ready")
        while not pipe.poll():
            assert holds_right(store, key, range(50))
            n_read += 1
    pipe.send(n_read)


def test_store_is_compacted_while_other_processes_use_it(tmp_path: Path) -> None:
    store = ActivationStore(tmp_path)
    key = write(store, range(50))
    with ExitStack() as stack:
        work = [(read_until_told, tmp_path, readonly) for readonly in (True, False)]
        pipes = [stack.enter_context(started(*each))[1] for each in work]
        pipes.append(stack.enter_context(started(grow_until_told, tmp_path, 50))[1])
        for pipe in pipes:
            assert pipe.recv() == "ready"
        pipes[-1].send("go")
        for _ in range(10):
            store.compact()
        for pipe in pipes:
            pipe.send("stop")
        n_read = [pipe.recv() for pipe in pipes[:2]]
        written = pipes[-1].recv()
    assert min(*n_read, len(written)) > 0
    assert holds_right(store, key, range(50))
    assert holds_right(store, key, written)


def become_nobody() -> None:
    # Root may write everywhere.
    if os.geteuid() == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def use_without_rights(pipe: Connection, path: Path) -> None:
    become_nobody()
    with ActivationStore(path, readonly=True) as store:
        pipe.send(holds_right(store, store.register("model"), range(10)))
    for use in (path, path / "new"):
        try:
            ActivationStore(use).create()
        except StoreError as error:
            pipe.send(str(error))


def test_folder_without_the_right_to_write_can_be_read() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ActivationStore(folder / "store") as store:
            write(store, range(10))
        for path in (*(folder / "store").iterdir(), folder / "store", folder):
            path.chmod(0o555 if path.is_dir() else 0o444)
        with started(use_without_rights, folder / "store") as (_, pipe):
            assert pipe.recv() is True
            for _ in range(2):
                assert "Open it with readonly=True, or give" in pipe.recv()
        for path in (folder, folder / "store"):
            path.chmod(stat.S_IRWXU)


def test_path_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    for path in (tmp_path / "file", tmp_path / "file" / "store"):
        with pytest.raises(StoreError, match="it must be a folder"):
            ActivationStore(path)
    assert (tmp_path / "file").read_text() == "text"


def test_nothing_is_made_before_something_is_written(tmp_path: Path) -> None:
    with ActivationStore(tmp_path / "typo") as store:
        assert (len(store), store.contents(), store.n_bytes) == (0, [], 0)
        assert store.dtype == "float32"
        assert store.delete("model") == 0
        store.wait(bytes(16), digests([1]))
        assert read(store, bytes(16), [1])[1].all()
        assert not (tmp_path / "typo").exists()
        write(store, [1])
        assert len(store) == 1
    assert ActivationStore(tmp_path / "half", dtype="float16").path.exists()
    assert ActivationStore(tmp_path / "half").dtype == "float16"


def test_no_store_is_made_among_other_files(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").touch()
    ActivationStore(tmp_path / "first").create()
    with pytest.raises(StoreError, match=r"none is created among .*such as 'first'"):
        ActivationStore(tmp_path)
    (tmp_path / "first" / "thesis.txt").touch()
    ActivationStore(tmp_path / "first").create()
    assert sorted(os.listdir(tmp_path)) == [".gitignore", "first"]


def test_store_that_is_not_there_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no activation store in .*without readonly"):
        ActivationStore(tmp_path / "store", readonly=True)
    assert not (tmp_path / "store").exists()


def change_tables(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path / TABLES)) as connection, connection:
        connection.execute(statement)


@pytest.mark.parametrize(("number", "other"), [(4, "a newer"), (2, "an older")])
def test_store_of_another_format_is_refused(
    tmp_path: Path, number: int, other: str
) -> None:
    with ActivationStore(tmp_path) as store:
        key = write(store, range(10))
    change_tables(tmp_path, f"PRAGMA user_version = {number}")
    data = (tmp_path / TABLES).read_bytes()
    for readonly in (True, False):
        with pytest.raises(StoreError, match=f"has format {number}, .*install {other}"):
            ActivationStore(tmp_path, readonly=readonly)
    assert (tmp_path / TABLES).read_bytes() == data
    change_tables(tmp_path, "PRAGMA user_version = 3")
    assert holds_right(ActivationStore(tmp_path), key, range(10))


@pytest.mark.parametrize("readonly", [True, False])
def test_store_of_an_earlier_release_is_told_and_kept(
    tmp_path: Path, readonly: bool
) -> None:
    """Releases before format 3 kept activations in an LMDB file of this name."""
    (tmp_path / "data.mdb").write_bytes(b"LMDB")
    expected = f"{tmp_path}.* by an earlier version .*Give another path.* install the"
    with pytest.raises(StoreError, match=expected):
        ActivationStore(tmp_path, readonly=readonly)
    assert os.listdir(tmp_path) == ["data.mdb"]
    assert (tmp_path / "data.mdb").read_bytes() == b"LMDB"


@pytest.mark.parametrize("readonly", [True, False])
def test_sqlite_file_of_something_else_is_refused(
    tmp_path: Path, readonly: bool
) -> None:
    change_tables(tmp_path, "CREATE TABLE something (other)")
    data = (tmp_path / TABLES).read_bytes()
    with pytest.raises(StoreError, match="not the file of an activation store"):
        ActivationStore(tmp_path, readonly=readonly)
    assert (tmp_path / TABLES).read_bytes() == data


@pytest.mark.parametrize("garbage", [b"garbage" * 5000, b"short"])
def test_garbage_is_told_and_kept(tmp_path: Path, garbage: bytes) -> None:
    (tmp_path / TABLES).write_bytes(garbage)
    for readonly in (True, False):
        with pytest.raises(StoreError, match=f"{tmp_path}.*damaged.*Move the folder"):
            ActivationStore(tmp_path, readonly=readonly)
    assert (tmp_path / TABLES).read_bytes() == garbage


@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
def test_tables_that_are_cut_short_are_told_and_kept(
    tmp_path: Path, part: float
) -> None:
    with ActivationStore(tmp_path) as store:
        key = write(store, range(500))
    data = (tmp_path / TABLES).read_bytes()
    cut = data[: int(part * len(data))]
    (tmp_path / TABLES).write_bytes(cut)
    for readonly in (True, False):
        with pytest.raises(StoreError, match=r"is damaged.* Move the folder"):
            ActivationStore(tmp_path, readonly=readonly)
    assert (tmp_path / TABLES).read_bytes() == cut
    (tmp_path / TABLES).write_bytes(data)
    with ActivationStore(tmp_path) as store:
        assert holds_right(store, key, range(500))


@pytest.mark.parametrize("n_left", [0, 1, 250.5, 499])
def test_vectors_that_are_cut_off_are_missing(tmp_path: Path, n_left: float) -> None:
    store = ActivationStore(tmp_path)
    key = write(store, range(500))
    os.truncate(tmp_path / VECTORS, int(n_left * 64))
    with pytest.warns(UserWarning, match=f"{500 - int(n_left)} damaged records"):
        out, missing = read(store, key, range(500))
    right = (out == make_states(range(500))).all(axis=-1)
    np.testing.assert_array_equal(right, ~missing)
    assert missing.all(axis=(1, 2)).sum() == 500 - int(n_left)
    write(store, range(500))
    assert holds_right(store, key, range(500))


def test_vectors_that_are_gone_are_missing(tmp_path: Path) -> None:
    store = ActivationStore(tmp_path)
    key = write(store, range(10))
    (tmp_path / VECTORS).unlink()
    for readonly in (True, False):
        with ActivationStore(tmp_path, readonly=readonly) as opened:
            with pytest.warns(UserWarning, match="10 damaged records"):
                assert read(opened, key, range(10))[1].all()
    write(store, range(10))
    assert holds_right(store, key, range(10))


def test_registering_again_waits_for_no_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plug_sklearn.embedding.store._database._PATIENCE", 0.01)
    store = ActivationStore(tmp_path)
    key = store.register("model", max_length=8)
    with closing(sqlite3.connect(tmp_path / TABLES)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        assert store.register("model", max_length=8) == key
        with pytest.raises(StoreError, match="another process has kept it locked"):
            store.register("model", max_length=9)
