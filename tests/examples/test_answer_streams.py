import asyncio
import importlib
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SECONDS = 20


@pytest.fixture(scope="module")
def answers() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        return importlib.import_module("answer_streams")


class Writer:
    """Writes the letters of each prompt in turn; notes the prompts of each batch."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.passes = threading.Semaphore(0)

    def __call__(self, batch: Sequence[Any]) -> Iterator[tuple[int, dict[str, Any]]]:
        self.batches.append([answer.prompt for answer in batch])
        assert self.passes.acquire(timeout=SECONDS)
        if any(answer.prompt == "bad" for answer in batch):
            raise ValueError("a bad prompt")
        going = list(enumerate(batch))
        for count in range(1, max(len(answer.prompt) for answer in batch) + 1):
            for place, answer in list(going):
                ends = answer.should_end({"probe": np.full((count, 2), 0.1 * count)})
                letter = answer.prompt[count - 1]
                yield place, {"token": letter, "stopped_by": "stop" if ends else None}
                if ends or count == len(answer.prompt):
                    going.remove((place, answer))

    def open(self) -> None:
        """Let all batches through."""
        self.passes.release(100)


def run(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:  # noqa: ANN401 - its result
    async def limited() -> Any:  # noqa: ANN401 - as above
        async with asyncio.timeout(SECONDS):
            return await work()

    return asyncio.run(limited())


async def read(streams: Any, prompt: str, **given: Any) -> str:  # noqa: ANN401 - the module is loaded
    """Open an answer, and join its tokens and the reason for its end."""
    answer = await streams.open(
        prompt,
        given.pop("max_new_tokens", 99),
        given.pop("stop", None),
        given,
    )
    events = b"".join([event async for event in answer.events(SECONDS)]).decode()
    streams.end(answer)
    tokens = [line.split('"')[3] for line in events.split("\n\n") if "token" in line]
    return "".join(tokens) + ("" if "null" in events else "!")


def test_answers_that_wait_are_written_together(answers: ModuleType) -> None:
    writer = Writer()

    async def ask() -> list[str]:
        streams = answers.AnswerStreams(writer)
        first = asyncio.create_task(read(streams, "abc"))
        while not writer.batches:
            await asyncio.sleep(0)
        others = [asyncio.create_task(read(streams, word)) for word in ("de", "fghi")]
        await asyncio.sleep(0)
        writer.open()
        return list(await asyncio.gather(first, *others))

    assert run(ask) == ["abc", "de", "fghi"]
    assert writer.batches == [["abc"], ["de", "fghi"]]


def test_each_answer_has_limits_of_its_own(answers: ModuleType) -> None:
    writer = Writer()
    writer.open()

    async def ask() -> list[str]:
        streams = answers.AnswerStreams(writer, wait=0.0)
        return list(
            await asyncio.gather(
                read(streams, "abcdef", max_new_tokens=2),
                read(streams, "abcdef", stop=0.35),
                read(streams, "abcdef"),
            )
        )

    assert run(ask) == ["ab!", "abcd!", "abcdef"]
    assert len(writer.batches) == 1


def test_an_answer_ends_before_the_longer_ones_of_its_batch(
    answers: ModuleType,
) -> None:
    passes = threading.Semaphore(0)

    def write(batch: Sequence[Any]) -> Iterator[tuple[int, dict[str, Any]]]:
        yield 0, {"token": "a", "stopped_by": "length"}
        yield 1, {"token": "b", "stopped_by": None}
        assert passes.acquire(timeout=SECONDS)
        raise FloatingPointError

    async def ask() -> list[str]:
        streams = answers.AnswerStreams(write, wait=0.0)
        short, long = await asyncio.gather(
            *(streams.open(prompt, 9, None, {}) for prompt in ("short", "long"))
        )
        found = [b"".join([event async for event in short.events(SECONDS)])]
        passes.release()
        found.append(b"".join([event async for event in long.events(SECONDS)]))
        return [events.decode() for events in found]

    short, long = run(ask)
    assert "event: end" in short and "length" in short
    assert "error" not in short
    assert "event: error" in long and "FloatingPointError" in long


def test_only_a_bad_prompt_fails(answers: ModuleType) -> None:
    writer = Writer()
    writer.open()

    async def ask() -> list[object]:
        streams = answers.AnswerStreams(writer, wait=0.0)
        prompts = ("abc", "bad", "def")
        found = await asyncio.gather(
            *(read(streams, prompt) for prompt in prompts), return_exceptions=True
        )
        assert streams.n_open == 0
        return list(found)

    first, bad, last = run(ask)
    assert (first, last) == ("abc", "def")
    assert isinstance(bad, ValueError)
    assert writer.batches[0] == ["abc", "bad", "def"]
    assert sorted(writer.batches[1:]) == [["abc"], ["bad"], ["def"]]


@pytest.mark.parametrize(
    ("first", "second", "batches"),
    [
        ({"top_p": 0.5}, {"top_p": 0.5}, [["a", "b"]]),
        ({"top_p": 0.5}, {"top_p": 0.5, "temperature": 2.0}, [["a"], ["b"]]),
        ({"seed": 1}, {"seed": 1}, [["a"], ["b"]]),
    ],
)
def test_what_differs_in_sampling_or_has_a_seed_is_written_apart(
    answers: ModuleType,
    first: dict[str, Any],
    second: dict[str, Any],
    batches: list[list[str]],
) -> None:
    writer = Writer()
    writer.open()

    async def ask() -> None:
        streams = answers.AnswerStreams(writer, wait=0.0)
        await asyncio.gather(read(streams, "a", **first), read(streams, "b", **second))

    run(ask)
    assert writer.batches == batches


def test_who_goes_away_ends_one_answer(answers: ModuleType) -> None:
    writer = Writer()
    writer.open()

    async def ask() -> str:
        streams = answers.AnswerStreams(writer, wait=0.0)
        one, other = await asyncio.gather(
            streams.open("a" * 400, 999, None, {}), streams.open("b" * 90, 99, None, {})
        )
        streams.end(one)
        found = b"".join([event async for event in other.events(SECONDS)]).decode()
        assert one.items.qsize() < 10
        return found

    assert run(ask).count('"b"') == 90


def test_closed_streams_open_no_more(answers: ModuleType) -> None:
    async def ask() -> None:
        streams = answers.AnswerStreams(Writer(), most=0)
        with pytest.raises(answers.Full):
            await read(streams, "a")
        streams.close()
        with pytest.raises(answers.Closed):
            await read(streams, "a")

    run(ask)
