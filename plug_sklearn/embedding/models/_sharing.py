"""Share loaded models among threads: a cache, and a lock that they take in turns."""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from transformers import PreTrainedModel

from plug_sklearn._forks import make_lock
from plug_sklearn.embedding.anatomy import Stack, find_input_device

#: Largest number of later requests that may overtake a patient one.
PATIENCE = 64

_Loaded = TypeVar("_Loaded")


class LRUCache:
    """Keeps what was loaded last; each thing is loaded once however many ask."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.items: OrderedDict[Hashable, Any] = OrderedDict()
        self.lock = make_lock()

    def get(self, key: Hashable, load: Callable[[], _Loaded]) -> _Loaded:
        # Loading holds the lock: two threads that want one model load it once.
        with self.lock:
            if key not in self.items:
                while len(self.items) >= self.size:
                    self.items.popitem(last=False)
                self.items[key] = load()
            self.items.move_to_end(key)
            loaded: _Loaded = self.items[key]
            return loaded


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
        self._changed = threading.Condition(make_lock())
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


@dataclass
class LoadedModel:
    """A model in memory; whoever has hooks on it holds its lock.

    ``missing`` names the weights that its files lack, and ``unused`` what the files
    hold that it has no place for. ``identity`` is equal in all processes that load the
    same files in the same way, and changes with them; None where that is not known.
    """

    model: PreTrainedModel
    lock: threading.RLock = field(default_factory=make_lock)
    # Of those who write with it; each takes its turn before the lock.
    turns: Turns = field(default_factory=Turns)
    # How each stack is read, found on first use.
    trials: dict[str | None, Any] = field(default_factory=dict)
    missing: frozenset[str] = frozenset()
    unused: frozenset[str] = frozenset()
    identity: str | None = None
    # What the model must be read within.
    reading: Callable[[], AbstractContextManager[object]] = nullcontext
    # Stacks none of whose weights are missing.
    complete: set[Stack | None] = field(default_factory=set)
    # The model with its language-model head, made on first use.
    causal: PreTrainedModel | None = None

    @property
    def input_device(self) -> torch.device:
        """Where token ids go: a model spread over devices has several."""
        return find_input_device(self.model)
