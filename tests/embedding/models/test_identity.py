import json
import os
import warnings
from pathlib import Path

import pytest

from plug_sklearn.embedding.models import (
    ModelSource,
    find_origin,
    identify_model,
    warn_of_change,
)
from plug_sklearn.persistence import ProvenanceWarning


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "my-model"
    made.mkdir()
    (made / "config.json").write_text("{}")
    (made / "model.safetensors").write_bytes(b"weights")
    (made / "README.md").write_text("A model.")
    return made


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The folder of a store, which remembers digests."""
    made = tmp_path / "store"
    made.mkdir()
    return made


def digest_files(folder: Path, store: Path) -> str:
    name, digest = identify_model(ModelSource(str(folder)), store).split("#")
    assert name == folder.name
    return digest


def test_equal_files_have_one_digest_wherever_they_are(
    folder: Path, store: Path
) -> None:
    copy = folder.with_name("copy")
    copy.mkdir()
    for name in ("config.json", "model.safetensors"):
        (copy / name).write_bytes((folder / name).read_bytes())
    assert digest_files(copy, store) == digest_files(folder, store)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_another_content_is_another_model(folder: Path, store: Path, name: str) -> None:
    before = digest_files(folder, store)
    file = folder / name
    stat = file.stat()
    file.write_bytes(b"x" * stat.st_size)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert digest_files(folder, store) != before


def test_readme_changes_nothing(folder: Path, store: Path) -> None:
    before = digest_files(folder, store)
    (folder / "README.md").write_text("A better model.")
    assert digest_files(folder, store) == before


def test_files_are_digested_once(
    folder: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digest_files(folder, store)
    monkeypatch.delattr("plug_sklearn.embedding.models._identity._digest_file")
    assert digest_files(folder, store) == before


def test_deleted_weights_are_remembered(folder: Path, store: Path) -> None:
    before = digest_files(folder, store)
    (folder / "model.safetensors").unlink()
    assert digest_files(folder, store) == before


@pytest.mark.parametrize("content", ["", "[]", "{", '{"x": 1}'])
def test_spoilt_memory_is_made_anew(folder: Path, store: Path, content: str) -> None:
    before = digest_files(folder, store)
    (memory,) = store.iterdir()
    memory.write_text(content)
    assert digest_files(folder, store) == before
    assert str(folder) in json.loads(memory.read_text())


def test_memory_that_cannot_be_written_is_no_error(folder: Path, store: Path) -> None:
    before = digest_files(folder, store)
    assert digest_files(folder, store / "no" / "such" / "folder") == before


def test_hub_model_is_named_by_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_commit = "plug_sklearn.embedding.models._identity.find_commit"
    monkeypatch.setattr(find_commit, lambda source: "0123abcd")
    assert identify_model(ModelSource("org/model"), tmp_path) == "org/model@0123abcd"


def test_origin_of_a_folder_is_what_its_files_hold(tmp_path: Path) -> None:
    for folder, text in {"one": "{}", "same": "{}", "other": "[]"}.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text(text)
    one, same, other = (
        find_origin(ModelSource(str(tmp_path / folder)))
        for folder in ("one", "same", "other")
    )
    assert one == same != other
    assert {path.name for path in tmp_path.rglob("*.json")} == {"config.json"}


def test_a_change_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    source = ModelSource(str(tmp_path))
    warn_of_change(source, str(find_origin(source)))
    with pytest.warns(ProvenanceWarning, match="it was abc, and is"):
        warn_of_change(source, "abc")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_change(source, "abc")
    assert not caught
