"""The examples run, on a tiny model and few facts, and each ends in a picture."""

import importlib
from pathlib import Path

import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = [
    "which_layer",
    "parts_compared",
    "how_many_labels",
    "is_it_calibrated",
    "cnn_or_best_layer",
]


@pytest.mark.parametrize("name", NAMES)
def test_an_example_runs_and_ends_in_a_picture(
    name: str,
    llama: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    importlib.import_module(name).main(tmp_path, llama, 8)
    plt.close("all")
    pixels = matplotlib.image.imread(tmp_path / f"{name}.png")
    assert pixels.shape[1] == 600
    assert len(np.unique(pixels)) > 10
    assert capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_read_at_a_glance(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 80
