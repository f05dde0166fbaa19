"""Turn iterators that compute in threads into server-sent events."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from micro_batching import Closed, Full

Item = dict[str, Any]


class AnswerStreams:
    """A limited number of streams that are open at the same time.

    Parameters
    ----------
    most : int, default=8
        Largest number of open streams.
    seconds : float, default=120
        Longest time that a stream may take, including the pauses of its reader.
    """

    def __init__(self, most: int = 8, seconds: float = 120.0) -> None:
        self.most = most
        self.seconds = seconds
        self.n_open = 0
        self._is_closed = False

    def close(self) -> None:
        """Open no more streams; open streams continue."""
        self._is_closed = True

    async def open(self, start: Callable[[], Iterator[Item]]) -> "AnswerStream":
        """Start a stream, and wait for its first item.

        ``start`` returns the iterator. Errors of ``start`` and of the first item are
        raised here, before the answer has begun.

        Raises
        ------
        Full, Closed
            If there are too many open streams, or ``close`` was called.
        """
        if self._is_closed:
            raise Closed
        if self.n_open >= self.most:
            raise Full
        stream = AnswerStream(self)
        try:
            await stream.start(start)
        except BaseException:
            stream.end()
            raise
        return stream


class AnswerStream:
    """One iterator that runs in a thread of its own.

    Each item is computed after the previous one has been sent. If a client stops
    reading, the stream therefore pauses, and no items pile up in memory.

    Parameters
    ----------
    streams : AnswerStreams
        The open streams, which count this one until it ends.
    """

    def __init__(self, streams: AnswerStreams) -> None:
        self.streams = streams
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="answer")
        self._items: Iterator[Item] = iter(())
        self._first: Item | None = None
        self._has_ended = False
        streams.n_open += 1

    async def start(self, start: Callable[[], Iterator[Item]]) -> None:
        """Make the iterator, and take its first item."""

        def take_first() -> Item | None:
            self._items = start()
            return next(self._items, None)

        self._first = await self._run(take_first)

    async def events(self) -> AsyncIterator[bytes]:
        """Yield the items as events; the last event says why the stream ends."""
        item, reason = self._first, None
        try:
            async with asyncio.timeout(self.streams.seconds):
                while item is not None:
                    reason = item.pop("stopped_by", None)
                    yield write_event(item)
                    item = await self._run(lambda: next(self._items, None))
            yield write_event({"stopped_by": reason}, "end")
        except TimeoutError:
            yield write_event({"stopped_by": "time"}, "end")
        except Exception as error:  # whatever it is, the client is told
            yield write_event({"detail": type(error).__name__}, "error")

    def end(self) -> None:
        """Close the iterator after its current item, and end the thread."""
        if self._has_ended:
            return
        self._has_ended = True
        self.streams.n_open -= 1
        self._thread.submit(lambda: getattr(self._items, "close", int)())
        self._thread.shutdown(wait=False)

    async def _run(self, function: Callable[[], Item | None]) -> Item | None:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, function)


def write_event(data: Item, name: str = "") -> bytes:
    r"""Write one server-sent event.

    Examples
    --------
    >>> write_event({"token": " Lima"})
    b'data: {"token": " Lima"}\n\n'
    """
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data)}\n\n".encode()
