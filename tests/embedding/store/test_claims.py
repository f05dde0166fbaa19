import os
import resource
import threading
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from _stored import digests, make_states, started

from plug_sklearn.embedding import ActivationStore, StoreError
from plug_sklearn.embedding.store._claims import ProcessLocks

LAYERS, PARTS = [0, 1], ["rs"]


@pytest.fixture
def store(tmp_path: Path) -> ActivationStore:
    return ActivationStore(tmp_path)


def claim(store: ActivationStore, numbers: list[int], **how: int) -> list[int]:
    """Claim prompts of one model; gives those that were claimed."""
    key = store.register("model")
    mine = store.claim(key, digests(numbers), LAYERS, PARTS, **how)
    return [number for number, is_mine in zip(numbers, mine, strict=True) if is_mine]


def write(store: ActivationStore, numbers: list[int]) -> None:
    key = store.register("model")
    store.write(key, digests(numbers), LAYERS, PARTS, make_states(numbers))


def answer(pipe: Connection, path: Path) -> None:
    """Claim and release what the pipe says, until it closes."""
    store = ActivationStore(path)
    key = store.register("model")
    while True:
        action, numbers = pipe.recv()
        if action == "claim":
            pipe.send(claim(store, numbers))
        elif action == "release":
            pipe.send(store.release(key, digests(numbers)))
        elif action == "write":
            pipe.send(write(store, numbers))
        elif action == "wait":
            pipe.send("waiting")
            pipe.send(store.wait(key, digests(numbers)))


def test_what_is_neither_held_nor_claimed_is_claimed(store: ActivationStore) -> None:
    write(store, [2])
    assert claim(store, [1, 2, 3]) == [1, 3]
    assert claim(store, [1, 2, 3, 4]) == [4]


def test_claims_are_taken_in_order_up_to_a_number(store: ActivationStore) -> None:
    write(store, [2])
    assert claim(store, [5, 2, 1, 9, 3], at_most=2) == [5, 1]
    assert claim(store, [5, 2, 1, 9, 3], at_most=2) == [9, 3]
    assert claim(store, [5, 2, 1, 9, 3], at_most=2) == []


def test_of_equal_digests_one_is_claimed(store: ActivationStore) -> None:
    key = store.register("model")
    mine = store.claim(key, digests([1, 2, 1, 1]), LAYERS, PARTS)
    assert mine.tolist() == [True, True, False, False]


def test_released_prompts_can_be_claimed_again(store: ActivationStore) -> None:
    claim(store, [1, 2, 3])
    store.release(store.register("model"), digests([1, 3]))
    assert claim(store, [1, 2, 3]) == [1, 3]


def test_prompt_without_all_that_is_asked_for_is_claimed(
    store: ActivationStore,
) -> None:
    key = store.register("model")
    write(store, [1])
    for layers, parts in (([0, 2], ["rs"]), ([0], ["rs", "attn"])):
        assert store.claim(key, digests([1]), layers, parts).tolist() == [True]
        store.release(key, digests([1]))
    assert store.claim(key, digests([1]), [1], ["rs"]).tolist() == [False]


def test_writing_ends_the_claim(store: ActivationStore) -> None:
    claim(store, [1, 2])
    write(store, [1])
    key = store.register("model")
    # With another layer it could not be claimed, were it still claimed.
    assert store.claim(key, digests([1, 2]), [5], PARTS).tolist() == [True, False]


def test_claims_hold_for_other_processes(store: ActivationStore) -> None:
    with started(answer, store.path) as (_, pipe):
        claim(store, [1, 2])
        pipe.send(("claim", [1, 2, 3, 4]))
        assert pipe.recv() == [3, 4]
        assert claim(store, [1, 2, 3, 4, 5]) == [5]


def test_no_process_can_release_another_s_claims(store: ActivationStore) -> None:
    with started(answer, store.path) as (_, pipe):
        claim(store, [1])
        pipe.send(("claim", [2]))
        pipe.recv()
        pipe.send(("release", [1, 2]))
        pipe.recv()
        pipe.send(("claim", [1, 2]))
        assert pipe.recv() == [2]


def test_claims_end_with_a_killed_process(store: ActivationStore) -> None:
    with started(answer, store.path) as (process, pipe):
        pipe.send(("claim", [1, 2]))
        assert pipe.recv() == [1, 2]
        assert claim(store, [1, 2]) == []
        process.kill()
        process.join()
        store.wait(store.register("model"), digests([1, 2]))
        assert claim(store, [1, 2]) == [1, 2]


@pytest.mark.parametrize("end", ["write", "release"])
def test_waiting_ends_when_all_claims_have(store: ActivationStore, end: str) -> None:
    claim(store, [1, 2])
    key = store.register("model")
    with started(answer, store.path) as (_, pipe):
        pipe.send(("wait", [1, 2, 3]))
        assert pipe.recv() == "waiting"
        store.release(key, digests([1]))
        # Longer than the shortest pause: it has looked again.
        assert not pipe.poll(0.05)
        if end == "write":
            write(store, [2])
        else:
            store.release(key, digests([2]))
        assert pipe.poll(10)


def test_waiting_pauses_longer_and_longer(
    store: ActivationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim(store, [1])
    key = store.register("model")
    pauses: list[float] = []

    def sleep(pause: float) -> None:
        pauses.append(pause)
        if len(pauses) == 20:
            store.release(key, digests([1]))

    monkeypatch.setattr("plug_sklearn.embedding.store._store.time.sleep", sleep)
    store.wait(key, digests([1]))
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.002, 0.25)
    assert len(pauses) == 20


def test_claims_of_a_parent_do_not_live_on_in_its_child(tmp_path: Path) -> None:
    with started(claim_and_fork, tmp_path) as (process, pipe):
        assert pipe.recv() == ([1], [2])
        process.kill()
        process.join()
        # The child runs on, and holds what it claimed itself.
        assert claim(ActivationStore(tmp_path), [1, 2]) == [1]
        pipe.send("done")


def claim_and_fork(pipe: Connection, path: Path) -> None:
    import os

    store = ActivationStore(path)
    mine = claim(store, [1])
    if os.fork() == 0:
        pipe.send((mine, claim(store, [1, 2])))
        pipe.recv()
        os._exit(0)
    os.wait()


def test_claims_that_a_full_disk_keeps_end_with_the_error(tmp_path: Path) -> None:
    with started(release_on_a_full_disk, tmp_path) as (_, pipe):
        assert "the disk is full" in pipe.recv()
        # The process lives and has the store open.
        assert claim(ActivationStore(tmp_path), [1]) == [1]
        pipe.send("end")


def release_on_a_full_disk(pipe: Connection, path: Path) -> None:
    store = ActivationStore(path)
    key = store.register("model")
    claim(store, [1])
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, -1))
    try:
        store.release(key, digests([1]))
    except StoreError as error:
        pipe.send(str(error))
    pipe.recv()


def test_claims_survive_closing_one_of_two_stores(store: ActivationStore) -> None:
    with ActivationStore(store.path) as other:
        claim(other, [1])
    with started(answer, store.path) as (_, pipe):
        pipe.send(("claim", [1]))
        assert pipe.recv() == []
        store.close()
        pipe.send(("claim", [1]))
        assert pipe.recv() == [1]


def test_claim_gives_booleans(store: ActivationStore) -> None:
    key = store.register("model")
    mine = store.claim(key, digests([1, 2]), LAYERS, PARTS)
    assert mine.dtype == np.bool_


def attend(pipe: Connection, path: Path) -> None:
    """Hold a number, and answer which others are alive."""
    locks = ProcessLocks(path)
    pipe.send(locks.get_owner())
    while True:
        pipe.send(locks.is_alive(pipe.recv()))


def test_process_is_alive_until_it_ends(tmp_path: Path) -> None:
    locks = ProcessLocks(tmp_path / "lock")
    with started(attend, tmp_path / "lock") as (process, pipe):
        other = pipe.recv()
        assert locks.is_alive(other)
        pipe.send(locks.get_owner())
        assert pipe.recv()
        process.kill()
        process.join()
        assert not locks.is_alive(other)
    assert locks.is_alive(locks.get_owner())
    locks.close()


def test_who_resigns_or_closes_is_not_alive(tmp_path: Path) -> None:
    locks = ProcessLocks(tmp_path / "lock")
    with started(attend, tmp_path / "lock") as (_, pipe):
        pipe.recv()
        former = locks.get_owner()
        locks.resign()
        latter = locks.get_owner()
        assert latter != former
        for owner, lives in ((former, False), (latter, True)):
            pipe.send(owner)
            assert pipe.recv() == lives
        locks.close()
        pipe.send(latter)
        assert not pipe.recv()


@pytest.mark.parametrize("step", [-1, 1])
def test_process_of_another_number_claims_under_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    locks = ProcessLocks(tmp_path / "lock")
    owner, pid = locks.get_owner(), os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: pid + step)
    assert locks.get_owner() != owner
    locks.close()


def test_who_may_only_read_sees_who_has_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_any = os.open

    def open_to_read(path: Path, flags: int, *others: int) -> int:
        if flags & os.O_RDWR:
            raise PermissionError(path)
        return open_any(path, flags, *others)

    with started(attend, tmp_path / "lock") as (process, pipe):
        other = pipe.recv()
        monkeypatch.setattr(os, "open", open_to_read)
        locks = ProcessLocks(tmp_path / "lock")
        assert locks.is_alive(other)
        process.kill()
        process.join()
        assert not locks.is_alive(other)
        locks.close()


@pytest.mark.parametrize("owner", [-1, 0, 1, 2**62, 2**63, b"1", None, 1.5])
def test_number_of_no_one_is_not_alive(tmp_path: Path, owner: object) -> None:
    locks = ProcessLocks(tmp_path / "lock")
    assert not locks.is_alive(owner)
    assert not (tmp_path / "lock").exists()
    locks.get_owner()
    assert not locks.is_alive(owner)
    locks.close()


def test_threads_that_create_two_stores_wait_for_each_other(tmp_path: Path) -> None:
    """The system would take two processes that wait so for a deadlock."""
    one, other = ProcessLocks(tmp_path / "one"), ProcessLocks(tmp_path / "other")
    work = (hold_and_wait, tmp_path / "other", tmp_path / "one")
    with one.hold_creation(), started(*work) as (_, pipe):
        assert pipe.recv() == "held"
        thread = threading.Thread(target=hold, args=(other,))
        thread.start()
        pipe.send("wait for the first")
        assert pipe.recv() == "waiting"
        assert not pipe.poll(0.05)
        pipe.send("let go of the other")
        thread.join(timeout=30)
        assert not thread.is_alive()
    one.close()
    other.close()


def hold(locks: ProcessLocks) -> None:
    with locks.hold_creation():
        pass


def hold_and_wait(pipe: Connection, held: Path, wanted: Path) -> None:
    first = ProcessLocks(held)
    holding = first.hold_creation()
    holding.__enter__()
    pipe.send("held")
    pipe.recv()
    waiter = threading.Thread(target=hold, args=(ProcessLocks(wanted),), daemon=True)
    waiter.start()
    pipe.send("waiting")
    pipe.recv()
    holding.__exit__(None, None, None)
    pipe.recv()
