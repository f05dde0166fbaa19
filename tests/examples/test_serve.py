"""The service as its clients see it, over loopback."""

import http.client
import importlib
import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import joblib
import numpy as np
import pytest
import uvicorn
from sklearn.pipeline import Pipeline, make_pipeline

from plug_sklearn import HFEmbeddingTransformer, LayerAggregator, PlugMLPClassifier

EXAMPLES = Path(__file__).parents[2] / "examples"
SECONDS = 20
NAMES = ("gold", "iron", "neon", "argon", "zinc", "tin", "lead", "helium")
TEXTS = [f"{name} is a {kind}" for name in NAMES for kind in ("metal", "gas")]
LABELS = [
    "metal" if name in NAMES[:2] + NAMES[4:7] else "gas"
    for name in NAMES
    for _ in range(2)
]


@pytest.fixture(scope="module")
def serve() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        return importlib.import_module("serve")


@pytest.fixture(scope="module")
def pipe(llama: str) -> Pipeline:
    return make_pipeline(
        HFEmbeddingTransformer(llama, device="cpu", max_length=32),
        LayerAggregator(),
        PlugMLPClassifier(max_epochs=4, random_state=0, device="cpu"),
    ).fit(TEXTS, LABELS)


class Client:
    """Asks a service on a port of this machine."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        content_type: str | None = "application/json",
    ) -> tuple[int, Any]:
        """Give the status and the JSON of an answer; a body may come in chunks."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, SECONDS)
        try:
            headers = {} if content_type is None else {"Content-Type": content_type}
            connection.request(method, path, body, headers)  # type: ignore[arg-type]  # bytes or an iterable of them
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def predict(self, texts: object, **more: object) -> tuple[int, Any]:
        question = json.dumps({"texts": texts, **more}).encode()
        return self.ask("POST", "/predict", question)


@contextmanager
def served(app: object) -> Iterator[tuple[Client, uvicorn.Server]]:
    """Run a real server in a thread, on a port that is free."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = Client(listening.getsockname()[1])
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield client, server
        finally:
            server.should_exit = True
            thread.join(SECONDS)
            assert not thread.is_alive(), "the server does not end"


@pytest.fixture(scope="module")
def client(serve: ModuleType, pipe: Pipeline) -> Iterator[Client]:
    limits = serve.Limits(characters=200, body_bytes=50_000, texts=16)
    app = serve.make_app(serve.make_compute(pipe), pipe.classes_.tolist(), limits)
    with served(app) as (client, _):
        yield client


def assert_answered(
    answer: tuple[int, Any], pipe: Pipeline, texts: Sequence[str]
) -> None:
    status, content = answer
    assert status == 200
    assert set(content) == {"classes", "predictions", "probabilities"}
    assert content["classes"] == ["gas", "metal"]
    assert content["predictions"] == pipe.predict(texts).tolist()
    np.testing.assert_allclose(
        content["probabilities"], pipe.predict_proba(texts), rtol=0, atol=1e-5
    )


def test_health(client: Client) -> None:
    assert client.ask("GET", "/health") == (200, {"status": "ok"})


def test_answers_are_the_pipeline_s_own(client: Client, pipe: Pipeline) -> None:
    for texts in (TEXTS[:1], TEXTS, [TEXTS[0]] * 3, ["naïve 日本 🙂", "\0", "<cls>"]):
        assert_answered(client.predict(texts), pipe, texts)


def test_clients_at_once_get_their_own_answers(client: Client, pipe: Pipeline) -> None:
    requests = [TEXTS[n : n + 1 + n % 4] for n in range(12)] * 8
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(client.predict, requests))
    for answer, texts in zip(answers, requests, strict=True):
        assert_answered(answer, pipe, texts)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 422, "body"),
        (b"{", 422, "JSON"),
        (b'{"texts": ["gold"]', 422, "JSON"),
        (b"\xff\xfe\x00", 400, "parsing the body"),
        (b'{"texts": ["\xff"]}', 400, "parsing the body"),
        (b"[" * 40_000, 400, "parsing the body"),
        (b'{"texts":' * 5_000, 400, "parsing the body"),
        (b"9" * 40_000, 400, "parsing the body"),
        (b"NaN", 422, "dictionary"),
        (b"[]", 422, "dictionary"),
        (b"null", 422, "body"),
        (b"{}", 422, "'texts'"),
        (b'{"texts": []}', 422, "at least 1 item"),
        (b'{"texts": "gold"}', 422, "valid list"),
        (b'{"texts": {"0": "gold"}}', 422, "valid list"),
        (b'{"texts": ["gold", 7]}', 422, "'texts', 1"),
        (b'{"texts": [null]}', 422, "valid string"),
        (b'{"texts": [["gold"]]}', 422, "valid string"),
        (b'{"texts": [""]}', 422, "at least one token"),
        (b'{"texts": ["gold"], "more": 1}', 422, "'more'"),
        (b'{"texts": ["gold"], "\\udcff": 1}', 422, "valid string"),
        (b'{"texts": ["gold \\ud800"]}', 422, "valid string"),
        (b'{"texts": ["' + b"a" * 201 + b'"]}', 422, "at most 200 characters"),
        (json.dumps({"texts": ["gold"] * 17}).encode(), 422, "at most 16 items"),
        (b'{"texts": ["' + b"a" * 100_000 + b'"]}', 413, "50000 bytes"),
    ],
)
def test_what_is_no_question_is_refused_with_a_reason(
    client: Client, body: bytes, status: int, said: str
) -> None:
    found, content = client.ask("POST", "/predict", body)
    assert (found, said in content["detail"]) == (status, True), content
    assert len(content["detail"]) < 2000


def send_in_chunks(n_bytes: int) -> Iterator[bytes]:
    """A body without a Content-Length."""
    yield b'{"texts": ["'
    for _ in range(n_bytes // 10_000):
        yield b"a" * 10_000
    yield b'"]}'


@pytest.mark.parametrize(
    "make", [lambda n_bytes: b"".join(send_in_chunks(n_bytes)), send_in_chunks]
)
def test_ten_megabytes_are_refused(
    client: Client, make: Callable[[int], bytes | Iterator[bytes]]
) -> None:
    status, content = client.ask("POST", "/predict", make(10_000_000))
    assert (status, "at most" in content["detail"]) == (413, True)


def test_body_in_chunks_within_the_limits_is_answered(
    client: Client, pipe: Pipeline
) -> None:
    body = json.dumps({"texts": TEXTS[:3]}).encode()
    chunks = (body[n : n + 7] for n in range(0, len(body), 7))
    assert_answered(client.ask("POST", "/predict", chunks), pipe, TEXTS[:3])


def test_huge_body_is_refused_before_it_comes(client: Client) -> None:
    with socket.create_connection(("127.0.0.1", client.port), SECONDS) as connection:
        connection.sendall(
            b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n"
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_body_that_does_not_come_is_not_waited_for(
    serve: ModuleType,
) -> None:
    limits = serve.Limits(body_seconds=0.05)
    with served(serve.make_app(lambda texts: [], [], limits)) as (client, _):
        address = ("127.0.0.1", client.port)
        with socket.create_connection(address, SECONDS) as connection:
            connection.sendall(
                b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{"
            )
            assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    ("method", "path", "content_type", "status"),
    [
        ("GET", "/predict", "application/json", 405),
        ("PUT", "/predict", "application/json", 405),
        ("POST", "/health", "application/json", 405),
        ("POST", "/nowhere", "application/json", 404),
        ("POST", "/predict", "text/plain", 415),
        ("POST", "/predict", "application/x-www-form-urlencoded", 415),
        ("POST", "/predict", "multipart/form-data", 415),
    ],
)
def test_other_ways_of_asking_are_refused(
    client: Client, method: str, path: str, content_type: str, status: int
) -> None:
    body = json.dumps({"texts": TEXTS[:1]}).encode()
    found, content = client.ask(method, path, body, content_type)
    assert (found, bool(content["detail"])) == (status, True)


@pytest.mark.parametrize("content_type", [None, "text/plain"])
def test_body_that_is_not_called_json_is_told_what_to_call_it(
    client: Client, content_type: str | None
) -> None:
    body = json.dumps({"texts": TEXTS[:1]}).encode()
    status, content = client.ask("POST", "/predict", body, content_type)
    got = "none" if content_type is None else "'text/plain'"
    said = f"The header Content-Type must be application/json. Got {got} instead."
    assert (status, content["detail"]) == (415, said)


class Gate:
    """Computes when it is let to."""

    def __init__(self) -> None:
        self.entered, self.passes = threading.Event(), threading.Event()
        self.passes.set()
        self.n_texts = 0

    def __call__(self, texts: list[str]) -> list[tuple[int, list[float]]]:
        self.n_texts += len(texts)
        self.entered.set()
        assert self.passes.wait(SECONDS)
        return [(len(text), [0.0, 1.0]) for text in texts]


def wait_until_asked(client: Client, app: Any, gate: Gate, n_texts: int) -> None:  # noqa: ANN401 - FastAPI's
    """Wait until so many texts are computed or in the queue, and no other request."""
    while gate.n_texts + app.state.batcher.count_waiting() < n_texts:
        client.ask("GET", "/health")


def test_shutdown_answers_what_was_asked(serve: ModuleType) -> None:
    gate = Gate()
    app = serve.make_app(gate, [0, 1], serve.Limits())
    with ThreadPoolExecutor(3) as threads:
        with served(app) as (client, server):
            client.ask("GET", "/health")
            gate.passes.clear()
            gate.entered.clear()
            asked = [threads.submit(client.predict, ["a" * n]) for n in (1, 2, 3)]
            assert gate.entered.wait(SECONDS)
            wait_until_asked(client, app, gate, n_texts=3)
            server.should_exit = True
            gate.passes.set()
            answers = [answer.result(SECONDS) for answer in asked]
    assert [status for status, _ in answers] == [200] * 3
    assert [content["predictions"] for _, content in answers] == [[1], [2], [3]]
    with pytest.raises(ConnectionError):
        client.ask("GET", "/health")


def test_more_than_may_wait_is_told_to_come_again(serve: ModuleType) -> None:
    gate = Gate()
    app = serve.make_app(gate, [0, 1], serve.Limits(waiting_texts=2))
    with ThreadPoolExecutor(4) as threads, served(app) as (client, _):
        client.ask("GET", "/health")
        gate.passes.clear()
        gate.entered.clear()
        first = threads.submit(client.predict, ["a"])
        assert gate.entered.wait(SECONDS)
        second = threads.submit(client.predict, ["b", "c"])
        wait_until_asked(client, app, gate, n_texts=3)
        status, content = client.predict(["d"])
        gate.passes.set()
        assert (status, "ask again" in content["detail"]) == (503, True)
        assert [first.result(SECONDS)[0], second.result(SECONDS)[0]] == [200, 200]


def test_joblib_file_is_served(
    serve: ModuleType,
    pipe: Pipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    joblib.dump(pipe, tmp_path / "probe.joblib")
    ran: dict[str, Any] = {}
    monkeypatch.setattr(uvicorn, "run", lambda app, **how: ran.update(how, app=app))
    serve.main([str(tmp_path / "probe.joblib"), "--port", "7", "--texts", "2"])
    assert ran["port"] == 7
    with served(ran["app"]) as (client, _):
        assert_answered(client.predict(TEXTS[:2]), pipe, TEXTS[:2])
        assert client.predict(TEXTS[:3])[0] == 422


def test_text_of_too_large_states_is_refused_and_no_failure(serve: ModuleType) -> None:
    def overflow(texts: list[str]) -> list[tuple[int, list[float]]]:
        if "huge" in texts:
            raise FloatingPointError("a state overflows float16")
        return [(0, [1.0, 0.0]) for _ in texts]

    with served(serve.make_app(overflow, [0, 1], serve.Limits())) as (client, _):
        assert client.predict(["huge"]) == (
            422,
            {"detail": "a state overflows float16"},
        )
