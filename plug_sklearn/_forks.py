"""Make the package fork-safe: locks are free in a child, and torch uses one thread.

A forked child has the locks of its parent, but not the threads that hold them, and
would wait for these locks for ever. It does not have torch's threads either.
"""

import itertools
import os
import threading
from contextlib import ExitStack
from weakref import WeakValueDictionary

import torch

_numbers = itertools.count()
_locks: WeakValueDictionary[int, threading.RLock] = WeakValueDictionary()
_of_thread = threading.local()


def make_lock() -> threading.RLock:
    """Make a lock that no other thread holds while this process forks.

    A fork waits until the lock is free, so that what it guards is consistent in the
    child. A thread that takes two of these locks must take the one made first, first.
    """
    lock = threading.RLock()
    _locks[next(_numbers)] = lock
    return lock


def _prepare_fork() -> None:
    # Of this thread: others may be about to fork too.
    held = _of_thread.held = ExitStack()
    taken: set[int] = set()
    # While one is waited for, its holder may make another.
    while waiting := sorted(_list_numbers() - taken):
        for number in waiting:
            lock = _locks.get(number)
            if lock is not None:
                held.enter_context(lock)
        taken.update(waiting)


def _list_numbers() -> set[int]:
    # A list made at once: iterating over the dictionary itself fails where another
    # thread adds a lock meanwhile.
    return {reference.key for reference in _locks.valuerefs()}


def _resume() -> None:
    _of_thread.held.close()


def _resume_in_child() -> None:
    _resume()
    if torch.get_num_threads() > 1:
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_prepare_fork,
        after_in_parent=_resume,
        after_in_child=_resume_in_child,
    )
