"""Write answers together, and stream each of them as server-sent events."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from micro_batching import Closed, Full

Item = dict[str, Any]

#: Most tokens of an answer that wait for its reader, beyond what the sockets hold.
MOST_UNREAD = 64


@dataclass(eq=False)
class Answer:
    """The answer to one prompt, which is written in a thread and read as events.

    Parameters
    ----------
    prompt : str
        The prompt that is answered.
    max_new_tokens : int
        Largest number of tokens.
    stop : float or None
        The answer ends when the probability of the last class reaches this threshold.
    options : dict
        Sampling options. Answers with equal options may be written together.
    """

    prompt: str
    max_new_tokens: int
    stop: float | None
    options: dict[str, Any]
    has_ended: bool = False
    reason: str | None = None
    items: asyncio.Queue[Item | Exception | None] = field(default_factory=asyncio.Queue)
    first: asyncio.Future[None] = field(default_factory=asyncio.Future)

    def should_end(self, probabilities: dict[str, Any]) -> bool:
        """Decide whether the answer ends with its newest token.

        This is the ``stop`` of ``stream_with_probes``, for a probe named "probe".
        """
        seen = probabilities["probe"]
        self.reason = None
        if self.has_ended or self.items.qsize() > MOST_UNREAD:
            self.reason = "reader"
        elif self.stop is not None and seen[-1, -1] >= self.stop:
            self.reason = "probe"
        elif len(seen) >= self.max_new_tokens:
            self.reason = "length"
        return self.reason is not None

    def add(self, item: Item | Exception | None) -> None:
        """Add a token, the error that ends the answer, or None for its end."""
        self.items.put_nowait(item)
        if self.first.done():
            return
        if isinstance(item, Exception):
            self.first.set_exception(item)
        else:
            self.first.set_result(None)

    async def events(self, seconds: float) -> AsyncIterator[bytes]:
        """Yield the tokens as events; the last event says why the answer ends."""
        reason = None
        try:
            async with asyncio.timeout(seconds):
                while (item := await self.items.get()) is not None:
                    if isinstance(item, Exception):
                        raise item
                    reason = item.pop("stopped_by", None)
                    yield write_event(item)
            yield write_event({"stopped_by": self.reason or reason}, "end")
        except TimeoutError:
            yield write_event({"stopped_by": "time"}, "end")
        except Exception as error:  # whatever it is, the client is told
            yield write_event({"detail": type(error).__name__}, "error")


Write = Callable[[Sequence[Answer]], Iterator[tuple[int, Item]]]


class AnswerStreams:
    """Writes a limited number of answers; those that begin together are one batch.

    New answers are collected until the previous batch has its first tokens,
    and are then written as one batch. If a batch fails before its first token, its
    answers are written separately, so that only a bad prompt fails. Each batch has a
    thread of its own.

    Parameters
    ----------
    write : callable or None
        Takes a list of answers with equal options, and yields pairs of the position of
        an answer and its next token. ``stopped_by`` of the last token of an answer is
        not None. None: ``open`` must not be called.
    most : int, default=8
        Largest number of answers that are open at the same time.
    together : int, default=8
        Largest number of answers in a batch. 1: each answer is written by itself.
    wait : float, default=0.002
        Time in seconds that the first answer of a batch waits for others.
    seconds : float, default=120
        Longest time that an answer may take, including the pauses of its reader.
    """

    def __init__(
        self,
        write: Write | None,
        *,
        most: int = 8,
        together: int = 8,
        wait: float = 0.002,
        seconds: float = 120.0,
    ) -> None:
        self.write = write
        self.most = most
        self.together = together
        self.wait = wait
        self.seconds = seconds
        self.n_open = 0
        self._is_closed = False
        self._waiting: deque[Answer] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_starting = False

    def close(self) -> None:
        """Open no more answers; open ones continue."""
        self._is_closed = True

    async def open(
        self,
        prompt: str,
        max_new_tokens: int,
        stop: float | None,
        options: dict[str, Any],
    ) -> Answer:
        """Begin an answer, and wait for its first token.

        Errors up to the first token are raised here, before the answer is sent.

        Raises
        ------
        Full, Closed
            If there are too many open answers, or ``close`` was called.
        """
        if self._is_closed:
            raise Closed
        if self.n_open >= self.most:
            raise Full
        answer = Answer(prompt, max_new_tokens, stop, options)
        self.n_open += 1
        self._waiting.append(answer)
        if not self._is_starting:
            self._is_starting = True
            self._begin(self._start_batches())
        try:
            await answer.first
        except BaseException:
            self.end(answer)
            raise
        return answer

    def end(self, answer: Answer) -> None:
        """Stop an answer after its current token."""
        if not answer.has_ended:
            answer.has_ended = True
            self.n_open -= 1

    def _begin(self, work: Any) -> None:  # noqa: ANN401 - a coroutine
        # The event loop itself does not keep its tasks.
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start_batches(self) -> None:
        """Start a batch, wait for its first token, and start the next one."""
        while self._waiting:
            await asyncio.sleep(self.wait)
            options = self._waiting[0].options
            batch = [each for each in self._waiting if each.options == options]
            # A seed gives the same answer only to a prompt alone.
            batch = batch[: 1 if "seed" in options else max(1, self.together)]
            for answer in batch:
                self._waiting.remove(answer)
            batch = [answer for answer in batch if not answer.has_ended]
            if batch:
                self._begin(self._write(batch))
                firsts = [answer.first for answer in batch]
                await asyncio.wait(firsts, return_when=asyncio.FIRST_COMPLETED)
        self._is_starting = False

    async def _write(self, batch: Sequence[Answer]) -> None:
        """Write a batch of answers in a thread."""
        assert self.write is not None
        loop = asyncio.get_running_loop()
        thread = ThreadPoolExecutor(1, thread_name_prefix="answers")
        going, has_begun, last = list(batch), False, None
        try:
            items = await loop.run_in_executor(thread, self.write, batch)
            while found := await loop.run_in_executor(thread, next, items, None):
                place, item = found
                batch[place].add(item)
                has_begun = True
                if item["stopped_by"] is not None:
                    going.remove(batch[place])
                    batch[place].add(None)
        except Exception as error:  # the clients are told; the next batches go on
            last = error
        finally:
            thread.shutdown(wait=False)
        if last is None or has_begun or len(batch) == 1:
            for answer in going:
                answer.add(last)
            return
        for answer in batch:
            self._begin(self._write([answer]))


def write_event(data: Item, name: str = "") -> bytes:
    r"""Write one server-sent event.

    Examples
    --------
    >>> write_event({"token": " Lima"})
    b'data: {"token": " Lima"}\n\n'
    """
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data)}\n\n".encode()
