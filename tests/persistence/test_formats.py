"""Artifacts that a release has written stay readable: those in tests/data."""

import json
from pathlib import Path

import numpy as np
import pytest
from _fitted import fit_mlp

from plug_sklearn import load_artifacts, save_artifacts

DATA = Path(__file__).parents[1] / "data"
WRITTEN = [
    (folder, name)
    for folder in sorted(DATA.glob("format_*"))
    for name in ("mlp", "cnn", "pipeline", "token")
]


@pytest.mark.parametrize(("folder", "name"), WRITTEN, ids=lambda part: str(part)[-8:])
def test_artifacts_of_every_format_give_the_probabilities_of_then(
    folder: Path, name: str
) -> None:
    written = json.loads((folder / "expected.json").read_text())
    expected = written["expected"][name]
    loaded = load_artifacts(folder / name)
    samples = np.array(written["samples"], dtype=np.float32)
    if name == "token":
        samples = samples.reshape(8, 3, 8)
    assert loaded.classes_.tolist() == expected["classes"]
    # Other machines and releases of torch round the last places otherwise.
    np.testing.assert_allclose(
        loaded.predict_proba(samples),
        expected["probabilities"],
        rtol=1e-7,  # a float's last places
    )


def test_every_format_up_to_this_one_is_guarded(tmp_path: Path) -> None:
    _, description = save_artifacts(fit_mlp(), tmp_path / "probe")
    newest = json.loads(description.read_text())["format"]
    expected = [f"format_{number}" for number in range(1, newest + 1)]
    assert [folder.name for folder in sorted(DATA.glob("format_*"))] == expected


def test_the_guards_are_small() -> None:
    assert sum(file.stat().st_size for file in DATA.rglob("*")) < 150_000
