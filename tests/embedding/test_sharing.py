import os
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Barrier, Thread

import numpy as np
import pytest
from _stored import HIDDEN_SIZE, digests, make_states, started

from plug_sklearn.embedding._sharing import Numbers, States, fill_activations
from plug_sklearn.embedding._store import ActivationStore

LAYERS, PARTS = [0, 1], ["rs"]


def fill(
    store: ActivationStore,
    numbers: list[int],
    computed: list[int],
    at_most: int | None = None,
    batch: int = 3,
) -> States:
    """Fill an array; notes which prompts were computed."""

    def compute(rows: Numbers) -> Iterator[tuple[Numbers, States]]:
        for begin in range(0, len(rows), batch):
            chosen = rows[begin : begin + batch]
            asked = [numbers[row] for row in chosen]
            computed.extend(asked)
            yield chosen, make_states(asked)

    out = np.empty((len(numbers), 2, 1, HIDDEN_SIZE), np.float32)
    key = store.register("model")
    fill_activations(store, key, digests(numbers), LAYERS, PARTS, out, compute, at_most)
    return out


@pytest.mark.parametrize("at_most", [None, 1, 4, 100])
def test_each_prompt_is_computed_once(tmp_path: Path, at_most: int | None) -> None:
    store = ActivationStore(tmp_path)
    computed: list[int] = []
    for numbers in ([3, 1, 4, 1, 5, 9, 2, 6], [5, 3, 5, 8, 9, 7], [1, 8]):
        out = fill(store, numbers, computed, at_most)
        np.testing.assert_array_equal(out, make_states(numbers))
    assert sorted(computed) == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_rounded_states_are_the_same_computed_and_read(tmp_path: Path) -> None:
    store = ActivationStore(tmp_path, dtype="bfloat16")
    first, second = (fill(store, [1, 7], []) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert (first != make_states([1, 7])).any()


def test_failed_computing_leaves_the_rest_to_others(tmp_path: Path) -> None:
    store = ActivationStore(tmp_path)
    key = store.register("model")
    numbers = list(range(6))
    out = np.empty((6, 2, 1, HIDDEN_SIZE), np.float32)

    def compute(rows: Numbers) -> Iterator[tuple[Numbers, States]]:
        yield rows[:2], make_states(rows[:2].tolist())
        raise MemoryError("out of memory")

    with pytest.raises(MemoryError):
        fill_activations(store, key, digests(numbers), LAYERS, PARTS, out, compute)
    computed: list[int] = []
    fill(store, numbers, computed)
    assert computed == [2, 3, 4, 5]


def test_threads_compute_each_prompt_once(tmp_path: Path) -> None:
    store = ActivationStore(tmp_path)
    computed: list[int] = []
    outs: dict[int, States] = {}
    barrier = Barrier(3)

    def work(first: int) -> None:
        barrier.wait()
        numbers = list(range(first, first + 30))
        outs[first] = fill(store, numbers, computed, at_most=5)

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
    out = fill(store, numbers, computed, at_most)
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
    store = ActivationStore(path)
    key = store.register("model")
    numbers = list(range(10))
    out = np.empty((10, 2, 1, HIDDEN_SIZE), np.float32)

    def compute(rows: Numbers) -> Iterator[tuple[Numbers, States]]:
        yield rows[:4], make_states(rows[:4].tolist())
        pipe.send("four written")
        pipe.recv()

    fill_activations(store, key, digests(numbers), LAYERS, PARTS, out, compute)


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


def fork_and_fill(pipe: Connection, path: Path) -> None:
    """Use an open store on both sides of a fork."""
    store = ActivationStore(path)
    computed: list[int] = []
    fill(store, [0, 1, 2], computed)
    child = os.fork()
    is_right = (fill(store, [*range(40)], computed) == make_states(range(40))).all()
    pipe.send((computed, bool(is_right)))
    if child == 0:
        pipe.recv()
        os._exit(0)
    os.waitpid(child, 0)
    assert (fill(store, [*range(41)], computed) == make_states(range(41))).all()
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
