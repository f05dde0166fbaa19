"""Pictures are drawn off screen, and none is left open."""

from collections.abc import Iterator

import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture
def figure() -> Figure:
    return Figure(figsize=(6, 4), dpi=100, layout="constrained")


@pytest.fixture
def no_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """Imports of matplotlib fail, as where it is not installed."""
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
