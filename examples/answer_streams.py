"""Iterators that compute in threads → server-sent events, a few at a time."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from micro_batching import Closed, Full

Item = dict[str, Any]


class AnswerStreams:
    """Streams that are written at the same time, up to a limit.

    Parameters
    ----------
    most : int, default=8
        Streams at once.
    seconds : float, default=120
        How long one may take, its reader's pauses included.
    """

    def __init__(self, most: int = 8, seconds: float = 120.0) -> None:
        self.most = most
        self.seconds = seconds
        self.n_open = 0
        self._is_closed = False

    def close(self) -> None:
        """Open no more streams; those that are open go on."""
        self._is_closed = True

    async def open(self, start: Callable[[], Iterator[Item]]) -> "AnswerStream":
        """Start a stream, and wait for its first item.

        ``start`` gives the iterator. Its errors, and those of the first item, are
        raised here, where they can still be told apart from an answer.

        Raises
        ------
        Full, Closed
            If there are too many streams, or no more are opened.
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
    """One iterator, all of whose calls are made in one thread.

    An item is computed when the one before has been sent. So a client that stops
    reading stops the stream, and costs no memory.

    Parameters
    ----------
    streams : AnswerStreams
        Those that it is one of, until it ends.
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
        """Yield the items as events, and why the stream ends."""
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
        """Close the iterator when its thread comes to it, and end the thread."""
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
