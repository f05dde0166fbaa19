import asyncio
import importlib
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

EXAMPLES = Path(__file__).parents[2] / "examples"
SECONDS = 20


@pytest.fixture(scope="module")
def batching() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        return importlib.import_module("micro_batching")


class Gate:
    """Doubles texts; each call is noted, and waits until it is let through."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.entered = threading.Semaphore(0)
        self.passes = threading.Semaphore(0)

    def __call__(self, texts: list[str]) -> list[str]:
        self.calls.append(texts)
        self.entered.release()
        assert self.passes.acquire(timeout=SECONDS)
        if "bad" in texts:
            raise ValueError("a bad text")
        return [2 * text for text in texts]

    async def wait(self) -> None:
        """Wait until a call has begun."""
        assert await asyncio.to_thread(self.entered.acquire, timeout=SECONDS)

    def open(self) -> None:
        """Let all calls through."""
        for _ in range(100):
            self.passes.release()

    def __enter__(self) -> "Gate":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.open()


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(SECONDS):
            await work()

    asyncio.run(bounded())


async def start(
    batcher: Any,  # noqa: ANN401 - the example's class, which is imported late
    *requests: list[str],
) -> list[asyncio.Task[list[str]]]:
    """Submit requests, and come back when they wait."""
    tasks = [asyncio.create_task(batcher.submit(texts)) for texts in requests]
    await asyncio.sleep(0)
    return tasks


def test_requests_that_come_during_a_call_are_the_next_one(
    batching: ModuleType,
) -> None:
    async def work() -> None:
        with Gate() as gate:
            async with batching.MicroBatcher(gate, wait=0) as batcher:
                first = await start(batcher, ["a"])
                await gate.wait()
                others = await start(batcher, ["b", "c"], ["d"], ["e"])
                gate.open()
                answers = [await task for task in (*first, *others)]
        assert answers == [["aa"], ["bb", "cc"], ["dd"], ["ee"]]
        assert gate.calls == [["a"], ["b", "c", "d", "e"]]

    run(work)


def test_batch_that_is_full_does_not_wait(batching: ModuleType) -> None:
    async def work() -> None:
        with Gate() as gate:
            gate.open()
            async with batching.MicroBatcher(
                gate, most_texts=3, wait=10 * SECONDS
            ) as batcher:
                tasks = await start(batcher, ["a"], ["b", "c"])
                assert [await task for task in tasks] == [["aa"], ["bb", "cc"]]
        assert gate.calls == [["a", "b", "c"]]

    run(work)


def test_batch_holds_no_more_than_it_may_unless_one_request_does(
    batching: ModuleType,
) -> None:
    async def work() -> None:
        with Gate() as gate:
            gate.open()
            async with batching.MicroBatcher(gate, most_texts=3, wait=0) as batcher:
                requests = (["a", "b"], ["c", "d"], ["e"], list("fghi"), ["j"])
                for task in await start(batcher, *requests):
                    await task
        assert gate.calls == [["a", "b"], ["c", "d", "e"], list("fghi"), ["j"]]

    run(work)


def test_bad_text_fails_alone(batching: ModuleType) -> None:
    async def work() -> None:
        with Gate() as gate:
            gate.open()
            async with batching.MicroBatcher(gate, wait=0) as batcher:
                good, bad, last = await start(batcher, ["a"], ["bad"], ["b"])
                assert (await good, await last) == (["aa"], ["bb"])
                with pytest.raises(ValueError, match="a bad text"):
                    await bad
                assert await batcher.submit(["c"]) == ["cc"]

    run(work)


def test_who_has_gone_is_not_computed_for(batching: ModuleType) -> None:
    async def work() -> None:
        with Gate() as gate:
            async with batching.MicroBatcher(gate, wait=0) as batcher:
                (first,) = await start(batcher, ["a"])
                await gate.wait()
                gone, stays = await start(batcher, ["b"], ["c"])
                for task in (first, gone):
                    task.cancel()
                gate.open()
                assert await stays == ["cc"]
        assert gate.calls == [["a"], ["c"]]

    run(work)


def test_too_many_waiting_texts_are_refused_at_once(batching: ModuleType) -> None:
    async def work() -> None:
        with Gate() as gate:
            async with batching.MicroBatcher(gate, most_waiting=3, wait=0) as batcher:
                (first,) = await start(batcher, ["a"])
                await gate.wait()
                waiting = await start(batcher, ["b", "c"])
                with pytest.raises(batching.Full):
                    await batcher.submit(["d", "e"])
                waiting += await start(batcher, ["f"])
                gate.open()
                assert [await task for task in (first, *waiting)] == [
                    ["aa"],
                    ["bb", "cc"],
                    ["ff"],
                ]

    run(work)


def test_closing_finishes_what_waits_and_takes_nothing_new(
    batching: ModuleType,
) -> None:
    async def work() -> None:
        with Gate() as gate:
            batcher = batching.MicroBatcher(gate, wait=SECONDS)
            async with batcher:
                tasks = await start(batcher, ["a"], ["b"])
                closing = asyncio.create_task(batcher.__aexit__())
                await gate.wait()
                with pytest.raises(batching.Closed):
                    await batcher.submit(["c"])
                gate.open()
                await closing
                assert [await task for task in tasks] == [["aa"], ["bb"]]

    run(work)


@given(
    st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=5), max_size=20),
    st.integers(1, 8),
)
def test_each_request_gets_its_own_answers(
    batching: ModuleType, requests: list[list[str]], most_texts: int
) -> None:
    async def work() -> None:
        def double(texts: list[str]) -> list[str]:
            return [2 * text for text in texts]

        async with batching.MicroBatcher(
            double, most_texts=most_texts, wait=0
        ) as batcher:
            tasks = await start(batcher, *requests)
            for task, texts in zip(tasks, requests, strict=True):
                assert await task == double(texts)

    run(work)
