import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from threading import Barrier, Thread

import numpy as np
import pytest
from _stored import HIDDEN_SIZE, digests, make_states, started
from numpy.typing import NDArray

from plug_sklearn.embedding import ActivationStore

States = NDArray[np.float32]

LAYERS, PARTS = [0, 1], ["rs"]


def fill(
    store: ActivationStore,
    numbers: Sequence[int],
    note: Callable[[int], object],
    at_most: int | None = None,
) -> States:
    """Read what is held, compute what no one else does, and wait for the rest.

    ``note`` is told each prompt that is computed.
    """
    key = store.register("model")
    out = np.empty((len(numbers), 2, 1, HIDDEN_SIZE), np.float32)
    rows = np.arange(len(numbers))
    while True:
        asked = digests([numbers[row] for row in rows])
        missing = store.read_into(key, asked, LAYERS, PARTS, out, rows)
        rows = rows[missing.any(axis=(1, 2))]
        if not len(rows):
            return out
        asked = digests([numbers[row] for row in rows])
        is_mine = store.claim(key, asked, LAYERS, PARTS, at_most=at_most)
        if not is_mine.any():
            store.wait(key, asked)
        for row in rows[is_mine]:
            note(numbers[row])
            states = make_states([numbers[row]])
            store.write(key, digests([numbers[row]]), LAYERS, PARTS, states)


@pytest.mark.parametrize("at_most", [None, 1, 4, 100])
def test_each_prompt_is_computed_once(tmp_path: Path, at_most: int | None) -> None:
    store = ActivationStore(tmp_path)
    computed: list[int] = []
    for numbers in ([3, 1, 4, 1, 5, 9, 2, 6], [5, 3, 5, 8, 9, 7], [1, 8]):
        out = fill(store, numbers, computed.append, at_most)
        np.testing.assert_array_equal(out, make_states(numbers))
    assert sorted(computed) == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_threads_compute_each_prompt_once(tmp_path: Path) -> None:
    store = ActivationStore(tmp_path)
    computed: list[int] = []
    outs: dict[int, States] = {}
    barrier = Barrier(3)

    def work(first: int) -> None:
        barrier.wait()
        numbers = list(range(first, first + 30))
        outs[first] = fill(store, numbers, computed.append, at_most=5)

    threads = [Thread(target=work, args=[first]) for first in (0, 10, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(computed) == list(range(50))
    for first, out in outs.items():
        np.testing.assert_array_equal(out, make_states(range(first, first + 30)))


def fill_when_told(
    pipe: Connection, path: Path, numbers: list[int], at_most: int | None
) -> None:
    store = ActivationStore(path)
    computed: list[int] = []
    pipe.send("ready")
    pipe.recv()
    out = fill(store, numbers, computed.append, at_most)
    pipe.send((computed, bool((out == make_states(numbers)).all())))


@pytest.mark.parametrize("at_most", [None, 7])
def test_processes_compute_each_prompt_once(
    tmp_path: Path, at_most: int | None
) -> None:
    folds = [list(range(0, 80)), list(range(20, 100)), list(range(99, -1, -1))]
    work = [(fill_when_told, tmp_path, fold, at_most) for fold in folds]
    with started(*work[0]) as (_, a), started(*work[1]) as (_, b):
        with started(*work[2]) as (_, c):
            for pipe in (a, b, c):
                assert pipe.recv() == "ready"
            for pipe in (a, b, c):
                pipe.send("go")
            answers = [pipe.recv() for pipe in (a, b, c)]
    computed = [number for numbers, _ in answers for number in numbers]
    assert sorted(computed) == list(range(100))
    assert all(is_right for _, is_right in answers)


def compute_until_killed(pipe: Connection, path: Path) -> None:
    def note(number: int) -> None:
        if number == 4:
            pipe.send("four written")
            pipe.recv()

    fill(ActivationStore(path), range(10), note)


def test_who_waits_takes_over_what_a_killed_process_left(tmp_path: Path) -> None:
    numbers = list(range(10))
    work = (fill_when_told, tmp_path, numbers, None)
    with started(compute_until_killed, tmp_path) as (process, first):
        assert first.recv() == "four written"
        with started(*work) as (_, second):
            assert second.recv() == "ready"
            second.send("go")
            # It has read four prompts and waits for six.
            assert not second.poll(0.1)
            process.kill()
            assert second.recv() == (numbers[4:], True)


@pytest.mark.parametrize("seed", range(8))
def test_killed_processes_keep_no_one_from_finishing(tmp_path: Path, seed: int) -> None:
    moments, orders = Random(seed), Random(seed)
    prompts = [orders.sample(range(150), 150) for _ in range(4)]
    with ExitStack() as stack:
        workers = [
            stack.enter_context(started(fill_when_told, tmp_path, order, 10))
            for order in prompts
        ]
        for _, pipe in workers:
            assert pipe.recv() == "ready"
        for _, pipe in workers:
            pipe.send("go")
        for process, pipe in workers[:2]:
            # All four want to write at the same time.
            pipe.poll(moments.uniform(0, 0.05))
            process.kill()
        answers = [pipe.recv() for _, pipe in workers[2:] if pipe.poll(30)]
    assert [is_right for _, is_right in answers] == [True, True]


def fork_and_fill(pipe: Connection, path: Path) -> None:
    """Use an open store on both sides of a fork."""
    store = ActivationStore(path)
    computed: list[int] = []
    fill(store, [0, 1, 2], computed.append)
    child = os.fork()
    is_right = (fill(store, range(40), computed.append) == make_states(range(40))).all()
    pipe.send((computed, bool(is_right)))
    if child == 0:
        pipe.recv()
        os._exit(0)
    os.waitpid(child, 0)
    assert (fill(store, range(41), computed.append) == make_states(range(41))).all()
    pipe.send(computed[-1])


def test_open_store_works_on_both_sides_of_a_fork(tmp_path: Path) -> None:
    with started(fork_and_fill, tmp_path) as (_, pipe):
        sides = [pipe.recv(), pipe.recv()]
        pipe.send("end the child")
        assert pipe.recv() == 40
    # Both begin with what was computed before the fork.
    after = [number for computed, _ in sides for number in computed[3:]]
    assert sorted(after) == list(range(3, 40))
    assert all(is_right for _, is_right in sides)
