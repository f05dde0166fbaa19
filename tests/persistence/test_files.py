import json
from pathlib import Path

import numpy as np
import pytest
from _fitted import X, fit_mlp

from plug_sklearn import LayerAggregator, load_artifacts, save_artifacts

AGGREGATOR = LayerAggregator().fit(X)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("probe", "probe"),
        ("probe.v2", "probe.v2"),
        ("a/probe.safetensors", "a/probe"),
        ("a.pt/probe.pth", "a.pt/probe"),
    ],
)
def test_only_suffixes_of_artifacts_are_replaced(
    path: str, name: str, tmp_path: Path
) -> None:
    tensors, description = save_artifacts(AGGREGATOR, tmp_path / path)
    assert tensors == tmp_path / f"{name}.safetensors"
    assert description == tmp_path / f"{name}.json"
    assert sorted(tensors.parent.iterdir()) == sorted([tensors, description])
    load_artifacts(tmp_path / path)


@pytest.mark.parametrize("path", ["", ".", "..", "/", "a/.."])
def test_a_path_without_a_name_is_refused_as_such(path: str) -> None:
    for call in (
        lambda: save_artifacts(AGGREGATOR, path),
        lambda: load_artifacts(path),
    ):
        with pytest.raises(
            ValueError, match=r"'path' of an artifact must end in the n"
        ):
            call()


@pytest.mark.parametrize("path", [None, 3, b"probe"])
def test_a_path_of_another_type_is_refused_as_such(path: object) -> None:
    with pytest.raises(TypeError, match=r"must be a str or a Path. Got (No|int|byt)"):
        load_artifacts(path)  # type: ignore[arg-type]  # what is tested


def test_a_message_does_not_quote_a_whole_file(tmp_path: Path) -> None:
    _, description = save_artifacts(AGGREGATOR, tmp_path / "probe")
    found = json.loads(description.read_text())
    found["format"] = "x" * 10**6
    description.write_text(json.dumps(found))
    with pytest.raises(
        ValueError, match=r"probe\.json cannot .* it has .*x+ \.\.\. .* format 1\.$"
    ) as e:
        load_artifacts(tmp_path / "probe")
    assert len(str(e.value)) < 1100 + len(str(tmp_path))


def test_a_write_that_fails_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = fit_mlp(random_state=0), fit_mlp(random_state=1)
    files = save_artifacts(old, tmp_path / "probe")
    before = [file.read_bytes() for file in files]

    def fail(descriptor: int) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as full:
        full.setattr("os.fsync", fail)
        with pytest.raises(OSError, match="no space left"):
            save_artifacts(new, tmp_path / "probe")
    assert [file.read_bytes() for file in files] == before
    assert sorted(tmp_path.iterdir()) == sorted(files)
    save_artifacts(new, tmp_path / "probe")
    loaded = load_artifacts(tmp_path / "probe")
    assert np.array_equal(loaded.predict_proba(X), new.predict_proba(X))
