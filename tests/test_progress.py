import io
import sys

import pytest

from plug_sklearn import HFEmbeddingTransformer


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "shown"), [(Terminal, True), (io.StringIO, False)])
def test_a_bar_is_shown_on_a_terminal_alone(
    llama: str,
    stream: type[io.StringIO],
    shown: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    embedder = HFEmbeddingTransformer(llama, device="cpu", verbose=True)
    embedder.fit(["Lima"])
    monkeypatch.setattr(sys, "stderr", stream())
    embedder.transform(["Lima", "Paris"])
    assert ("Embedding: 100%" in sys.stderr.getvalue()) is shown
