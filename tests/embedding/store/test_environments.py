import os
import resource
import stat
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

import lmdb
import numpy as np
import pytest
from _stored import digests, holds_right, make_states, read, started

from plug_sklearn.embedding.store import _compaction, _environments, _registry
from plug_sklearn.embedding.store._failures import StoreError
from plug_sklearn.embedding.store._store import ActivationStore

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
    with started(die_while_writing, tmp_path) as (process, pipe):
        assert pipe.recv() == "inside"
        process.kill()
        process.join()
        key = write(store, range(10))
    assert holds_right(store, key, range(10))
    assert len(store) == 10


def die_while_writing(pipe: Connection, path: Path) -> None:
    store = ActivationStore(path)
    environment = _registry.open_environment(path, store, readonly=False, dtype=None)

    def work(transaction: _environments.Transaction) -> None:
        transaction.put(b"half", b"done")
        pipe.send("inside")
        pipe.recv()

    environment.write(work)


def test_map_grows_with_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_environments, "_FIRST_MAP_SIZE", 2**16)
    store = ActivationStore(tmp_path)
    key = write(store, range(2000))
    assert store.n_bytes > 2**17
    assert holds_right(store, key, range(2000))


def write_some(pipe: Connection, path: Path, n_prompts: int) -> None:
    write(ActivationStore(path), range(n_prompts))
    pipe.send("written")


def test_map_grows_with_what_other_processes_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_environments, "_FIRST_MAP_SIZE", 2**16)
    reader = ActivationStore(tmp_path)
    key = reader.register("model")
    with started(write_some, tmp_path, 2000) as (_, pipe):
        assert pipe.recv() == "written"
    assert holds_right(reader, key, range(2000))
    write(reader, range(2000, 2100))
    assert len(reader) == 2100


def test_file_is_no_larger_than_its_data(tmp_path: Path) -> None:
    with ActivationStore(tmp_path) as store:
        write(store, range(10))
        assert (tmp_path / "data.mdb").stat().st_size < 2**16
        assert store.n_bytes < 2**16


def fill_the_disk(pipe: Connection, path: Path) -> None:
    store = ActivationStore(path)
    key = write(store, range(10))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
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
        assert "make room and run again" in errors[0]
        assert n_prompts == 10
        assert is_right
        assert pipe.recv()


def test_compaction_without_room_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ActivationStore(tmp_path)
    key = write(store, range(10))

    def fail(*_: object, **__: object) -> None:
        raise lmdb.DiskError("mdb_txn_commit: No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(_compaction, "_copy", fail)
        with pytest.raises(StoreError, match="the disk is full"):
            store.compact()
    assert holds_right(store, key, range(10))
    assert sorted(os.listdir(tmp_path)) == ["data.mdb", "lock.mdb", "users.lock"]


def test_compaction_is_refused_while_another_process_has_the_store(
    tmp_path: Path,
) -> None:
    store = ActivationStore(tmp_path)
    key = write(store, range(10))
    with started(hold_open, tmp_path) as (_, pipe):
        assert pipe.recv() == 10
        with pytest.raises(StoreError, match="is open in another process"):
            store.compact()
        pipe.send("close")
        assert pipe.recv() == "closed"
        store.compact()
        pipe.send("open")
        assert pipe.recv() == 10
    assert holds_right(store, key, range(10))


def hold_open(pipe: Connection, path: Path) -> None:
    with ActivationStore(path) as store:
        pipe.send(len(store))
        pipe.recv()
    pipe.send("closed")
    pipe.recv()
    pipe.send(len(ActivationStore(path)))
    pipe.recv()


def become_nobody() -> None:
    # Root may write everywhere.
    if os.geteuid() == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def use_without_rights(pipe: Connection, path: Path) -> None:
    with tempfile.TemporaryDirectory() as other, ActivationStore(other) as store:
        # lmdb imports the rest of itself on first use, from where nobody may not read.
        len(store)
    become_nobody()
    with ActivationStore(path, readonly=True) as store:
        pipe.send(holds_right(store, store.register("model"), range(10)))
    for use in (path, path / "new"):
        try:
            ActivationStore(use)
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


def test_store_that_is_not_there_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no activation store in .*without readonly"):
        ActivationStore(tmp_path / "store", readonly=True)
    assert not (tmp_path / "store").exists()


def put(path: Path, key: bytes, value: bytes) -> None:
    with lmdb.open(str(path)) as environment, environment.begin(write=True) as opened:
        opened.put(key, value)


@pytest.mark.parametrize(("number", "other"), [(3, "a newer"), (1, "an older")])
def test_store_of_another_format_is_refused(
    tmp_path: Path, number: int, other: str
) -> None:
    with ActivationStore(tmp_path) as store:
        key = write(store, range(10))
    original = (tmp_path / "data.mdb").read_bytes()
    put(tmp_path, b"format", f'{{"format": {number}, "dtype": "float8"}}'.encode())
    newer = (tmp_path / "data.mdb").read_bytes()
    for readonly in (True, False):
        with pytest.raises(StoreError, match=f"has format {number}, .*install {other}"):
            ActivationStore(tmp_path, readonly=readonly)
    assert (tmp_path / "data.mdb").read_bytes() == newer
    (tmp_path / "data.mdb").write_bytes(original)
    assert holds_right(ActivationStore(tmp_path), key, range(10))


def test_lmdb_file_of_something_else_is_refused(tmp_path: Path) -> None:
    put(tmp_path, b"something", b"else")
    data = (tmp_path / "data.mdb").read_bytes()
    with pytest.raises(StoreError, match="not one of an activation store"):
        ActivationStore(tmp_path)
    assert (tmp_path / "data.mdb").read_bytes() == data


@pytest.mark.parametrize("garbage", [b"garbage" * 5000, bytes(40960), b"short"])
def test_garbage_is_told_and_kept(tmp_path: Path, garbage: bytes) -> None:
    (tmp_path / "data.mdb").write_bytes(garbage)
    for readonly in (True, False):
        with pytest.raises(StoreError, match=f"{tmp_path}.*damaged.*Move the folder"):
            ActivationStore(tmp_path, readonly=readonly)
    assert (tmp_path / "data.mdb").read_bytes() == garbage


def test_unreadable_format_is_told(tmp_path: Path) -> None:
    put(tmp_path, b"format", b"garbage")
    with pytest.raises(StoreError, match=r"damaged .*does not tell its format"):
        ActivationStore(tmp_path)


@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
def test_truncated_file_is_told_and_kept(tmp_path: Path, part: float) -> None:
    with ActivationStore(tmp_path) as store:
        key = write(store, range(500), hidden_size=600)
    data = (tmp_path / "data.mdb").read_bytes()
    cut = data[: int(part * len(data))]
    (tmp_path / "data.mdb").write_bytes(cut)
    for readonly in (True, False):
        with pytest.raises(StoreError, match=r"is cut short\. Put back a whole"):
            ActivationStore(tmp_path, readonly=readonly)
    assert (tmp_path / "data.mdb").read_bytes() == cut
    (tmp_path / "data.mdb").write_bytes(data)
    with ActivationStore(tmp_path) as store:
        assert not read(store, key, range(500), hidden_size=600)[1].any()


def test_file_without_its_last_pages_lacks_what_they_held(tmp_path: Path) -> None:
    with ActivationStore(tmp_path) as store:
        key = write(store, range(500), hidden_size=600)
        # Then the last pages are of records.
        store.compact()
    path = tmp_path / "data.mdb"
    os.truncate(path, path.stat().st_size - 3 * os.sysconf("SC_PAGE_SIZE"))
    with pytest.raises(StoreError, match="is cut short"):
        ActivationStore(tmp_path, readonly=True)
    with ActivationStore(tmp_path) as store:
        out, missing = read(store, key, range(500), hidden_size=600)
        right = out == make_states(range(500), hidden_size=600)
        np.testing.assert_array_equal(right.all(axis=-1), ~missing)
        assert 0 < missing.sum() <= 6
        write(store, range(500), hidden_size=600)
        assert not read(store, key, range(500), hidden_size=600)[1].any()
