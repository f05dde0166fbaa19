"""Answers that the service streams, as clients see them over loopback."""

import importlib
import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from sklearn.pipeline import Pipeline, make_pipeline
from test_serve import LABELS, SECONDS, TEXTS, Client, served
from transformers import AutoModelForCausalLM

from plug_sklearn import (
    HFEmbeddingTransformer,
    LayerAggregator,
    PlugMLPClassifier,
    generate_with_probes,
)

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def serve() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        return importlib.import_module("serve")


@pytest.fixture(scope="module")
def pipe(
    tmp_path_factory: pytest.TempPathFactory, byte_tokenizer: Callable[..., Any]
) -> Pipeline:
    folder = tmp_path_factory.mktemp("writer")
    config = transformers.LlamaConfig(
        vocab_size=330,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=512,
        pad_token_id=0,
        eos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return make_pipeline(
        HFEmbeddingTransformer(str(folder), layers=[1], device="cpu"),
        LayerAggregator(),
        PlugMLPClassifier(max_epochs=4, random_state=0, device="cpu"),
    ).fit(TEXTS, LABELS)


@pytest.fixture(scope="module")
def app(serve: ModuleType, pipe: Pipeline) -> Any:  # noqa: ANN401 - FastAPI's
    limits = serve.Limits(characters=200, answers=3, answer_tokens=400)
    compute, write = serve.make_compute(pipe), serve.make_write(pipe)
    return serve.make_app(compute, pipe.classes_.tolist(), limits, write)


@pytest.fixture(scope="module")
def client(app: Any) -> Iterator[Client]:  # noqa: ANN401 - as above
    with served(app) as (client, _):
        yield client


class Answer:
    """A connection that reads the events of one answer."""

    def __init__(self, client: Client, **question: object) -> None:
        self.connection = socket.create_connection(("127.0.0.1", client.port), SECONDS)
        body = json.dumps(question).encode()
        self.connection.sendall(
            b"POST /generate HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\n"
            + f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        self.stream = self.connection.makefile("rb")
        self.status = int(self.stream.readline().split()[1])
        self.headers = b"".join(iter(self.stream.readline, b"\r\n"))

    def events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the name and the data of each event."""
        name = "message"
        for line in self.stream:
            if line.startswith(b"event: "):
                name = line[7:].strip().decode()
            elif line.startswith(b"data: "):
                yield name, json.loads(line[6:])

    def close(self) -> None:
        self.stream.close()
        self.connection.close()


def read(client: Client, **question: object) -> list[tuple[str, dict[str, Any]]]:
    """Read all events of one answer."""
    answer = Answer(client, **question)
    try:
        return list(answer.events())
    finally:
        answer.close()


def compute_nothing(texts: list[str]) -> list[tuple[int, list[float]]]:
    """Stand for a probe that only reads."""
    return [(0, [1.0])] * len(texts)


def wait_until_free(client: Client, app: Any) -> None:  # noqa: ANN401 - as above
    """Wait until no answer is written."""
    while app.state.streams.n_open:
        client.ask("GET", "/health")


def test_events_are_the_tokens_and_probabilities_of_the_answer(
    client: Client, pipe: Pipeline
) -> None:
    answer = Answer(client, prompt="Gold is", max_new_tokens=7)
    assert answer.status == 200
    assert b"text/event-stream" in answer.headers
    *events, (name, end) = answer.events()
    answer.close()
    (expected,) = generate_with_probes(["Gold is"], pipe, max_new_tokens=7)
    assert "".join(event["token"] for _, event in events) == expected.text
    found = [event["probabilities"] for _, event in events]
    np.testing.assert_allclose(found, expected.probabilities["probe"], atol=1e-5)
    assert (name, end) == ("end", {"stopped_by": "length"})


def test_the_probe_ends_an_answer_and_seeds_repeat_it(
    client: Client,
    app: Any,  # noqa: ANN401 - FastAPI's
) -> None:
    question = {"prompt": "Iron", "max_new_tokens": 20, "temperature": 2.0, "seed": 3}
    first, second = (read(client, **question) for _ in range(2))
    assert first == second
    wait_until_free(client, app)
    seen = [event["probabilities"][1] for name, event in first if name == "message"]
    *events, (_, end) = read(client, **question, stop=max(seen))
    assert len(events) == seen.index(max(seen)) + 1
    assert end == {"stopped_by": "probe"}


def test_an_answer_whose_reader_goes_away_ends(
    client: Client,
    app: Any,  # noqa: ANN401 - FastAPI's
) -> None:
    wait_until_free(client, app)
    n_threads = threading.active_count()
    answer = Answer(client, prompt="Gold", max_new_tokens=400)
    next(answer.events())
    assert app.state.streams.n_open == 1
    answer.close()
    wait_until_free(client, app)
    # The service goes on, and the thread that wrote has ended.
    assert client.predict(TEXTS[:1])[0] == 200
    while threading.active_count() > n_threads + 2:
        client.ask("GET", "/health")


def test_more_answers_than_may_be_written_are_told_to_come_again(
    client: Client,
    app: Any,  # noqa: ANN401 - FastAPI's
) -> None:
    wait_until_free(client, app)
    answers = [Answer(client, prompt="Gold", max_new_tokens=400) for _ in range(3)]
    for answer in answers:
        next(answer.events())
    refused = Answer(client, prompt="Gold", max_new_tokens=4)
    content = json.loads(refused.stream.read())
    assert (refused.status, "ask again" in content["detail"]) == (503, True)
    assert b"retry-after: 1" in refused.headers.lower()
    for answer in [*answers, refused]:
        answer.close()
    wait_until_free(client, app)


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ({}, "'prompt'"),
        ({"prompt": ""}, "at least one token"),
        ({"prompt": 3}, "valid string"),
        ({"prompt": "a" * 201}, "at most 200 characters"),
        ({"prompt": "Gold", "max_new_tokens": 0}, "greater than or equal to 1"),
        ({"prompt": "Gold", "max_new_tokens": 401}, "less than or equal to 400"),
        ({"prompt": "Gold", "stop": 2.0}, "less than or equal to 1"),
        ({"prompt": "Gold", "temperature": 1e-40}, "greater than or equal to 0.01"),
        ({"prompt": "Gold", "num_beams": 2}, "'num_beams'"),
    ],
)
def test_what_is_no_question_is_refused_with_a_reason(
    client: Client, question: dict[str, Any], said: str
) -> None:
    status, content = client.ask("POST", "/generate", json.dumps(question).encode())
    assert (status, said in content["detail"]) == (422, True), content


def test_a_bad_question_disturbs_no_answer(client: Client, pipe: Pipeline) -> None:
    (expected,) = generate_with_probes(["Gold"], pipe, max_new_tokens=40)
    with ThreadPoolExecutor(4) as threads:
        answer = threads.submit(read, client, prompt="Gold", max_new_tokens=40)
        for _ in range(10):
            assert client.ask("POST", "/generate", b'{"prompt": ""}')[0] == 422
        *events, _ = answer.result(SECONDS)
    assert "".join(event["token"] for _, event in events) == expected.text


def test_answers_that_are_written_together_are_those_of_each_alone(
    client: Client, pipe: Pipeline
) -> None:
    questions = [
        {"prompt": "Gold is", "max_new_tokens": 9},
        {"prompt": "Iron, and much more", "max_new_tokens": 4},
        {"prompt": "Tin", "max_new_tokens": 6, "stop": 0.0},
    ]
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda each: read(client, **each), questions))
    for question, (*events, (_, end)) in zip(questions, found, strict=True):
        stop = {"probe": question["stop"]} if "stop" in question else None
        (expected,) = generate_with_probes(
            [question["prompt"]],
            pipe,
            max_new_tokens=question["max_new_tokens"],
            stop=stop,
        )
        assert "".join(event["token"] for _, event in events) == expected.text
        seen = [event["probabilities"] for _, event in events]
        np.testing.assert_allclose(seen, expected.probabilities["probe"], atol=1e-5)
        assert end == {"stopped_by": expected.stopped_by}


def test_who_stops_reading_stops_the_writing(serve: ModuleType) -> None:
    taken: list[int] = []
    ended = threading.Event()

    def write(answers: Sequence[Any]) -> Iterator[tuple[int, dict[str, Any]]]:
        # One token, after which neither a threshold nor a limit ends the answer.
        seen = {"probe": np.zeros((1, 2))}
        while not answers[0].should_end(seen):
            taken.append(1)
            yield 0, {"token": "x" * 10_000, "probabilities": [], "stopped_by": None}
        ended.set()

    app = serve.make_app(compute_nothing, [0], serve.Limits(), write)
    with served(app) as (client, _):
        answer = Answer(client, prompt="Gold", max_new_tokens=400)
        assert ended.wait(SECONDS)
        *events, end = answer.events()
        answer.close()
    # What the sockets hold, and a few more.
    assert 0 < len(events) == len(taken) < 10**4
    assert end == ("end", {"stopped_by": "reader"})


def test_shutdown_waits_for_answers_that_are_written(serve: ModuleType) -> None:
    passes, entered = threading.Event(), threading.Event()

    def write(_: object) -> Iterator[tuple[int, dict[str, Any]]]:
        yield 0, {"token": "a", "probabilities": [1.0], "stopped_by": None}
        entered.set()
        assert passes.wait(SECONDS)
        yield 0, {"token": "b", "probabilities": [1.0], "stopped_by": "length"}

    app = serve.make_app(compute_nothing, [0], serve.Limits(), write)
    with ThreadPoolExecutor(1) as threads:
        with served(app) as (client, server):
            asked = threads.submit(read, client, prompt="x")
            assert entered.wait(SECONDS)
            server.should_exit = True
            passes.set()
            events = asked.result(SECONDS)
    assert [event.get("token") for _, event in events] == ["a", "b", None]
    assert events[-1] == ("end", {"stopped_by": "length"})
