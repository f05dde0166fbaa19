import io
import sys

import pytest

from plug_sklearn._progress import show_progress


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "shown"), [(Terminal, True), (io.StringIO, False)])
def test_a_bar_is_shown_on_a_terminal_alone(
    stream: type[io.StringIO], shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream())
    with show_progress(2, "Embedding", "text") as bar:
        bar.update(2)
    assert ("Embedding: 100%" in sys.stderr.getvalue()) is shown
