"""Keep the last few things that were loaded."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from plug_sklearn._forks import make_lock

_Loaded = TypeVar("_Loaded")


class Shelf:
    """Keeps the last few things loaded, each loaded once however many ask."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.kept: OrderedDict[Hashable, Any] = OrderedDict()
        self.lock = make_lock()

    def take(self, key: Hashable, load: Callable[[], _Loaded]) -> _Loaded:
        # Loading holds the lock: two threads that want one model load it once.
        with self.lock:
            if key not in self.kept:
                while len(self.kept) >= self.size:
                    self.kept.popitem(last=False)
                self.kept[key] = load()
            self.kept.move_to_end(key)
            loaded: _Loaded = self.kept[key]
            return loaded
