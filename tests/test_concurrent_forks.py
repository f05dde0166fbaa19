"""What a fork does with locks while other threads fork, or make locks."""

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from weakref import WeakValueDictionary

import pytest

from plug_sklearn import _forks
from plug_sklearn._forks import make_lock


class HandedOver:
    """A lock whose release ends when another thread has it."""

    def __init__(self) -> None:
        self.lock, self.is_taken = threading.RLock(), threading.Event()

    def __enter__(self) -> None:
        self.lock.acquire()

    def __exit__(self, *error: object) -> None:
        self.lock.release()
        assert self.is_taken.wait(timeout=30)


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads that give way whenever they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_two_threads_that_fork_at_once_free_their_own_locks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handed, resumed = HandedOver(), threading.Event()
    monkeypatch.setattr(_forks, "_locks", WeakValueDictionary({0: handed}))

    def fork_next() -> None:
        _forks._prepare_fork()
        handed.is_taken.set()
        assert resumed.wait(timeout=30)
        _forks._resume()

    # What Python runs around a fork, and no fork.
    _forks._prepare_fork()
    with ThreadPoolExecutor(1) as threads:
        done = threads.submit(fork_next)
        try:
            _forks._resume()
        finally:
            resumed.set()
        done.result(timeout=30)
    assert handed.lock.acquire(blocking=False)


@pytest.mark.usefixtures("hasty_threads")
def test_locks_may_be_made_while_another_thread_forks() -> None:
    with ThreadPoolExecutor(2) as threads:
        made = [
            threads.submit(lambda: [make_lock() for _ in range(1000)]) for _ in range(2)
        ]
        for _ in range(20):
            _forks._prepare_fork()
            _forks._resume()
        assert all(len(locks.result(timeout=30)) == 1000 for locks in made)
