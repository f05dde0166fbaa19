"""Merge requests that wait at the same time into one call, in a worker thread."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any


class Full(Exception):
    """Too many texts are waiting. A later request may be accepted."""


class Closed(Exception):
    """No more requests are accepted."""


@dataclass
class Request:
    """Texts, and a future that will hold their results."""

    texts: Sequence[str]
    answer: asyncio.Future[list[Any]] = field(default_factory=asyncio.Future)


class MicroBatcher:
    """Merges requests into batches, and returns its own results to each request.

    While a batch is computed, the next requests are collected. If a batch fails, its
    requests are computed one by one, so that only the request with a bad text fails.

    Parameters
    ----------
    compute : callable
        Takes a list of texts, and returns a sequence of as many results. It is called
        in one thread, and never twice at the same time.
    most_texts : int, default=64
        Largest number of texts in a batch. A larger request is a batch by itself. 1:
        requests are not merged.
    wait : float, default=0.002
        Longest time in seconds that the first request of a batch waits for others.
    most_waiting : int, default=1024
        Largest number of texts that may wait.
    """

    def __init__(
        self,
        compute: Callable[[list[str]], Sequence[Any]],
        *,
        most_texts: int = 64,
        wait: float = 0.002,
        most_waiting: int = 1024,
    ) -> None:
        self.compute = compute
        self.most_texts = most_texts
        self.wait = wait
        self.most_waiting = most_waiting
        self._waiting: deque[Request] = deque()
        self._arrival = asyncio.Event()
        self._is_closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="micro-batching")

    async def __aenter__(self) -> "MicroBatcher":
        self._work = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *error: object) -> None:
        """Refuse new requests, and finish those that wait."""
        self._is_closed = True
        self._arrival.set()
        await self._work
        self._thread.shutdown()

    async def submit(self, texts: Sequence[str]) -> list[Any]:
        """Get the results of texts.

        Raises
        ------
        Full, Closed
            If too many texts are waiting, or no more requests are accepted.
        Exception
            What ``compute`` raises for them.
        """
        if self._is_closed:
            raise Closed
        if self.count_waiting() + len(texts) > self.most_waiting and self._waiting:
            raise Full
        request = Request(texts)
        self._waiting.append(request)
        self._arrival.set()
        return await request.answer

    async def _run(self) -> None:
        while await self._gather():
            batch = self._take_batch()
            answers = await self._compute(batch)
            for request, answer in zip(batch, answers, strict=True):
                if request.answer.done():
                    continue  # the client has disconnected
                if isinstance(answer, Exception):
                    request.answer.set_exception(answer)
                else:
                    request.answer.set_result(answer)

    async def _gather(self) -> bool:
        """Wait until a batch is full or its time is up; False if no more will come."""
        while not self._waiting:
            if self._is_closed:
                return False
            self._arrival.clear()
            await self._arrival.wait()
        loop = asyncio.get_running_loop()
        end = loop.time() + self.wait
        while self.count_waiting() < self.most_texts and not self._is_closed:
            self._arrival.clear()
            try:
                await asyncio.wait_for(self._arrival.wait(), end - loop.time())
            except TimeoutError:
                break
        return True

    def count_waiting(self) -> int:
        """Count the texts that no batch has taken yet."""
        return sum(len(request.texts) for request in self._waiting)

    def _take_batch(self) -> list[Request]:
        batch: list[Request] = []
        n_texts = 0
        while self._waiting:
            n_texts += len(self._waiting[0].texts)
            if batch and n_texts > self.most_texts:
                break
            batch.append(self._waiting.popleft())
        return [request for request in batch if not request.answer.cancelled()]

    async def _compute(
        self, batch: Sequence[Request]
    ) -> Sequence[list[Any] | Exception]:
        loop = asyncio.get_running_loop()
        texts = [text for request in batch for text in request.texts]
        if not texts:
            return []
        try:
            results = list(
                await loop.run_in_executor(self._thread, self.compute, texts)
            )
        except Exception as error:  # it goes to its request, and this loop continues
            if len(batch) == 1:
                return [error]
            return [(await self._compute([request]))[0] for request in batch]
        answers: list[list[Any] | Exception] = []
        for request in batch:
            answers.append(results[: len(request.texts)])
            results = results[len(request.texts) :]
        return answers
