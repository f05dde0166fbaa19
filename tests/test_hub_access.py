import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from time import monotonic

import pytest
from huggingface_hub import close_session, constants

from plug_sklearn import HFEmbeddingTransformer
from plug_sklearn._hub_access import is_hub_reachable


@pytest.fixture
def free_port() -> Iterator[int]:
    """A port of this machine at which nothing listens, as long as the test runs."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture
def serve() -> Iterator[Callable[[bytes | None], int]]:
    """Start servers that give each connection one answer; None: they never answer."""
    with ExitStack() as stack:

        def start(answer: bytes | None) -> int:
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            thread = threading.Thread(target=run, args=(server, answer), daemon=True)
            stack.callback(thread.join)
            stack.callback(server.shutdown, socket.SHUT_RDWR)
            thread.start()
            return int(server.getsockname()[1])

        def run(server: socket.socket, answer: bytes | None) -> None:
            held = []
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    break
                if answer is None:
                    held.append(connection)
                    continue
                with connection:
                    connection.recv(4096)
                    connection.sendall(answer)
            for connection in held:
                connection.close()

        yield start


def set_endpoint(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def test_model_is_told_missing_at_once_where_the_hub_cannot_be_reached(
    free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_endpoint(monkeypatch, f"http://127.0.0.1:{free_port}")
    start = monotonic()
    with pytest.raises(OSError, match=r"'nobody/model' .* could not be downloaded"):
        HFEmbeddingTransformer("nobody/model").fit(["Gold"])
    # The hub's client would wait for 1 + 2 + 4 + 8 + 8 seconds.
    assert monotonic() - start < 10


@pytest.mark.parametrize("status", ["200 OK", "401 No", "403 No", "404 No", "500 No"])
def test_any_answer_means_that_the_hub_can_be_reached(
    serve: Callable[..., int], monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    answer = f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()
    set_endpoint(monkeypatch, f"http://127.0.0.1:{serve(answer)}/a/mirror")
    assert is_hub_reachable()


@pytest.mark.parametrize(
    ("scheme", "answer"),
    [
        ("http", None),
        ("http", b""),
        ("http", b"SSH-2.0-server\r\n"),
        ("https", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    ],
    ids=["slow", "closed", "no HTTP", "no TLS"],
)
def test_what_goes_wrong_after_the_connection_is_left_to_the_client(
    serve: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
    answer: bytes | None,
) -> None:
    monkeypatch.setattr("plug_sklearn._hub_access._PATIENCE", 0.2)
    set_endpoint(monkeypatch, f"{scheme}://127.0.0.1:{serve(answer)}")
    assert is_hub_reachable()


@pytest.mark.parametrize("endpoint", ["hub.example", "http://", ""])
def test_endpoint_that_is_no_address_is_left_to_the_client(
    monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    set_endpoint(monkeypatch, endpoint)
    assert is_hub_reachable()


def test_hub_is_reached_through_a_proxy(
    serve: Callable[..., int], free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    answer = b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"
    try:
        for port, reached in ((serve(answer), True), (free_port, False)):
            monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
            # The client reads the environment when it is made.
            close_session()
            set_endpoint(monkeypatch, f"http://hub{port}.invalid")
            assert is_hub_reachable() is reached
    finally:
        close_session()


def test_offline_mode_asks_nobody_and_is_not_remembered(
    serve: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    set_endpoint(monkeypatch, f"http://127.0.0.1:{serve(answer)}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert not is_hub_reachable()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert is_hub_reachable()


def test_answer_is_remembered(free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    set_endpoint(monkeypatch, f"http://127.0.0.1:{free_port}")
    assert not is_hub_reachable()
    monkeypatch.setattr("plug_sklearn._hub_access.get_session", None)
    assert not is_hub_reachable()
