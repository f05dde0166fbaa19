"""Stores that some processes make longer while others open and read them."""

from collections import Counter
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import lmdb
import pytest
from _stored import digests, holds_right, make_states, started

from plug_sklearn.embedding.store import _environments
from plug_sklearn.embedding.store._failures import StoreError
from plug_sklearn.embedding.store._store import ActivationStore

#: Of data longer than this, LMDB maps no more than is there.
SMALL_MAP = 2**14


def write(store: ActivationStore, numbers: range) -> bytes:
    key = store.register("model")
    store.write(key, digests(numbers), [0, 1], ["rs"], make_states(numbers))
    return key


def grow_when_told(pipe: Connection, path: Path) -> None:
    # Without the store's own locks, which an opener holds for a part of the time.
    with lmdb.open(str(path), map_size=2**24) as environment:
        pipe.send("ready")
        while pipe.recv():
            with environment.begin(write=True) as transaction:
                transaction.put(b"something", bytes(2**20))
            pipe.send("written")


@pytest.mark.parametrize("readonly", [False, True])
def test_store_opens_where_another_process_adds_to_it_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readonly: bool
) -> None:
    monkeypatch.setattr(_environments, "_FIRST_MAP_SIZE", SMALL_MAP)
    with ActivationStore(tmp_path) as store:
        key = write(store, range(200))
    open_file = lmdb.open

    with started(grow_when_told, tmp_path) as (_, pipe):
        assert pipe.recv() == "ready"

        def open_and_let_grow(*args: Any, **kwargs: Any) -> lmdb.Environment:  # noqa: ANN401 - lmdb.open's
            environment = open_file(*args, **kwargs)
            pipe.send(True)
            assert pipe.recv() == "written"
            return environment

        monkeypatch.setattr(lmdb, "open", open_and_let_grow)
        with ActivationStore(tmp_path, readonly=readonly) as store:
            assert holds_right(store, key, range(200))
        pipe.send(False)


def grow_until_told(pipe: Connection, path: Path, first: int) -> None:
    _environments._FIRST_MAP_SIZE = SMALL_MAP
    store = ActivationStore(path)
    pipe.send("ready")
    pipe.recv()
    end = first
    while not pipe.poll():
        write(store, range(end, end + 5))
        end += 5
    pipe.send(range(first, end))


def open_many_times(pipe: Connection, path: Path, readonly: bool) -> None:
    _environments._FIRST_MAP_SIZE = SMALL_MAP
    pipe.send("ready")
    pipe.recv()
    outcomes: Counter[str] = Counter()
    for _ in range(250):
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
        assert [pipe.recv() for pipe in openers] == [{"right": 250}] * 4
        for pipe in writers:
            pipe.send("stop")
        written = [pipe.recv() for pipe in writers]
    with ActivationStore(tmp_path) as store:
        assert all(len(numbers) for numbers in written)
        assert all(holds_right(store, key, numbers) for numbers in written)
