"""The lock that threads take in turns to run one model."""

import os
import threading
from queue import SimpleQueue

import pytest

from plug_sklearn.embedding.models import PATIENCE, Turns


def wait_in_thread(turns: Turns, key: int, seen: SimpleQueue[int]) -> threading.Thread:
    """Let a thread wait for its turn, and return when it waits."""
    n_before = len(turns._waiting)

    def run() -> None:
        with turns.take(key):
            seen.put(key)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while len(turns._waiting) == n_before:
        pass
    return thread


def test_the_smallest_key_goes_first_whoever_came_first() -> None:
    turns, seen = Turns(), SimpleQueue[int]()
    with turns.take(turns.arrive()):
        threads = [wait_in_thread(turns, key, seen) for key in (9, 4, 12, 5)]
        assert seen.empty()
    for thread in threads:
        thread.join(20)
    assert [seen.get(timeout=20) for _ in threads] == [4, 5, 9, 12]


def test_the_patient_wait_for_those_who_come_soon_after_and_no_longer() -> None:
    turns = Turns()
    patient = turns.arrive(patient=True)
    soon = [turns.arrive() for _ in range(PATIENCE - 1)]
    assert max(soon) < patient
    turns.arrive()
    assert turns.arrive() > patient


def test_an_error_within_a_turn_ends_it() -> None:
    turns = Turns()
    with pytest.raises(KeyError), turns.take(turns.arrive()):
        raise KeyError
    with turns.take(turns.arrive()):
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_does_not_wait_for_threads_of_its_parent() -> None:
    turns = Turns()
    with turns.take(turns.arrive()):
        child = os.fork()
        if child == 0:
            with turns.take(turns.arrive()):
                os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
