"""Iterate over items that a function produces in a separate thread."""

import threading
from collections.abc import Callable, Iterator
from queue import Queue
from typing import Generic, TypeVar

import sklearn

Item = TypeVar("Item")


class Cancelled(BaseException):
    """Raised in the function when the iterator is closed.

    No ``except Exception`` catches it.
    """


class _End:
    """Marks the end of the items; holds the error that ended the function, if any."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class _Producer(Generic[Item]):
    """Runs a function in a thread, which waits until each of its items is taken."""

    def __init__(self, produce: Callable[[Callable[[Item], None]], None]) -> None:
        self._produce = produce
        self._items: Queue[Item | _End] = Queue(maxsize=1)
        self._is_cancelled = threading.Event()
        # Each thread has its own scikit-learn settings.
        self._settings = sklearn.get_config()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def take(self) -> Item | _End:
        return self._items.get()

    def cancel(self) -> None:
        """Stop the function at its next item, and wait until it has ended."""
        self._is_cancelled.set()
        while self._thread.is_alive():
            if isinstance(self._items.get(), _End):
                break
        self._thread.join()

    def _hand_out(self, item: Item) -> None:
        self._items.put(item)
        if self._is_cancelled.is_set():
            raise Cancelled

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            with sklearn.config_context(**self._settings):
                self._produce(self._hand_out)
        except Cancelled:
            pass
        except BaseException as raised:
            error = raised
        self._items.put(_End(error))


def iterate(produce: Callable[[Callable[[Item], None]], None]) -> Iterator[Item]:
    """Run a function in a separate thread, and yield the items that it produces.

    ``produce`` takes a function, which it calls with each item. This call returns once
    the previous item has been taken, and raises ``Cancelled`` when the iterator is
    closed. An error of ``produce`` is raised after its last item.
    """
    producer = _Producer(produce)
    ended = False
    try:
        while True:
            item = producer.take()
            if isinstance(item, _End):
                ended = True
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        if not ended:
            producer.cancel()
