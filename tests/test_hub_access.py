import socket
import threading
from collections.abc import Iterator
from time import monotonic

import pytest
from huggingface_hub import constants

from plug_sklearn import HFEmbeddingTransformer
from plug_sklearn._hub_access import is_hub_reachable


@pytest.fixture
def free_port() -> Iterator[int]:
    """A port of this machine at which nothing listens, as long as the test runs."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that answers each connection by closing it."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"HTTP/1.1 404 Not Found\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_model_is_told_missing_at_once_where_the_hub_cannot_be_reached(
    free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{free_port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    start = monotonic()
    with pytest.raises(OSError, match=r"'nobody/model' .* could not be downloaded"):
        HFEmbeddingTransformer("nobody/model").fit(["Gold"])
    # The hub's client would wait for 1 + 2 + 4 + 8 + 8 seconds.
    assert monotonic() - start < 10


def test_any_answer_means_that_the_hub_can_be_reached(
    silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent_port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert is_hub_reachable()


def test_answer_is_remembered(free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{free_port}")
    assert not is_hub_reachable()
    monkeypatch.setattr("plug_sklearn._hub_access.get_session", None)
    assert not is_hub_reachable()
