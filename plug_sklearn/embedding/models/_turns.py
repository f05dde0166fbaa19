"""Whose pass runs next, where several threads run one model."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

from plug_sklearn._forks import make_lock

#: So many turns may be asked for later than one that can wait, and be taken first.
PATIENCE = 64


class Turns:
    """Gives threads the model by turns, in the order of their keys.

    A lock alone may go back to the thread that has just released it. Someone who waits
    for a first token should not wait for the whole answers of others.

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
        """Give the key of one who arrives now; the smallest key goes first."""
        with self._changed:
            self._n_arrived += 1
            return self._n_arrived + PATIENCE * patient

    @contextmanager
    def take(self, key: int) -> Iterator[None]:
        """Wait for one's turn, and have it."""
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
                # Who comes next may be another now, also after an interrupt.
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
