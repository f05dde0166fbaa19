"""Order the forward passes of several threads that write with one model."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

from plug_sklearn._forks import make_lock

#: Largest number of later requests that may overtake a patient one.
PATIENCE = 64


class Turns:
    """A lock that threads get in the order of their keys, the smallest first.

    With an ordinary lock, the thread that has just released it may get it again. Passes
    up to the first token of an answer should not wait for the whole answers of others,
    so these ask for their turns patiently.

    Examples
    --------
    >>> turns = Turns()
    >>> with turns.take(turns.arrive()):
    ...     print("alone")
    alone
    """

    def __init__(self) -> None:
        self._changed = Condition(make_lock())
        self._process = os.getpid()
        self._n_arrived = 0
        self._waiting: list[int] = []
        self._is_taken = False

    def arrive(self, *, patient: bool = False) -> int:
        """Return a key for a thread that arrives now, larger if it is patient."""
        with self._changed:
            self._n_arrived += 1
            return self._n_arrived + PATIENCE * patient

    @contextmanager
    def take(self, key: int) -> Iterator[None]:
        """Wait for the turn of a key, and hold the lock."""
        with self._changed:
            self._forget_parent()
            self._waiting.append(key)
            try:
                self._changed.wait_for(
                    lambda: not self._is_taken and key == min(self._waiting)
                )
                self._is_taken = True
            finally:
                self._waiting.remove(key)
                # Another thread may be next now, also after an interrupt.
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._is_taken = False
                self._changed.notify_all()

    def _forget_parent(self) -> None:
        """Forget the threads of the process that this one was forked from."""
        if self._process != os.getpid():
            self._process, self._is_taken = os.getpid(), False
            self._waiting.clear()
