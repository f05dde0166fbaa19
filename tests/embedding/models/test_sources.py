import json
import os
import shutil
import warnings
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import pytest
import transformers
from _hub import COMMIT, fill_cache

from plug_sklearn.embedding.models import (
    ModelSource,
    find_origin,
    identify_model,
    load_config,
    load_tokenizer,
    warn_of_change,
)
from plug_sklearn.persistence import ProvenanceWarning

Fail = Callable[[str], None]


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Fail:
    """Let configurations fail to load, with an error of this message."""

    def raise_error(message: str) -> None:
        def load(*_: object, **__: object) -> None:
            raise OSError(message)

        monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", load)

    return raise_error


def test_what_is_missing_is_named_with_how_to_get_it(fail: Fail) -> None:
    fail("no connection")
    with pytest.raises(OSError) as raised:
        load_config(ModelSource("nobody/model", "v1", commit="0123"))
    message = str(raised.value)
    assert "'nobody/model' (revision 'v1', commit 0123)" in message
    assert "'hf download nobody/model --revision 0123'" in message
    assert str(raised.value.__cause__) == "no connection"


@pytest.mark.parametrize("name", ["/no/such/folder", "./models/x", "a/b/c", "~/x"])
@pytest.mark.parametrize("parameter", ["model_name", "adapter"])
def test_path_of_nothing_is_one_error_without_a_cause(
    name: str, parameter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = ModelSource(name, parameter=parameter)
    message = (
        rf"'{parameter}' parameter .* existing folder.*{name}' instead, which does"
    )
    with pytest.raises(FileNotFoundError, match=message) as raised:
        load_config(source)
    assert raised.value.__cause__ is None


def test_folder_that_is_there_is_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ModelSource(".").loading_arguments()[0] == "."


def test_errors_of_a_model_that_is_there_stay(fail: Fail, tmp_path: Path) -> None:
    fail("no memory")
    (tmp_path / "config.json").touch()
    with pytest.raises(OSError, match=r"^no memory$"):
        load_config(ModelSource(str(tmp_path)))


def test_an_adapter_that_is_missing_is_called_one(fail: Fail) -> None:
    fail("no connection")
    message = "adapter 'nobody/adapter'.*the 'adapter' parameter"
    with pytest.raises(OSError, match=message):
        load_config(ModelSource("nobody/adapter", parameter="adapter"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("table.csv", "is a file of another kind"),
        ("model.safetensors", r"is a file of weights: give its folder"),
        ("none.gguf", "does not exist"),
    ],
)
def test_files_that_are_no_models_are_refused(
    name: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if "exist" not in message:
        path.write_text("a,b")
    with pytest.raises(FileNotFoundError, match=rf"'model_name'.*{name}.*{message}"):
        load_config(ModelSource(str(path)))


def test_missing_gguf_file_is_no_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"'none\.gguf'.*does not exist"):
        load_config(ModelSource("none.gguf"))


def test_folder_without_a_configuration_is_refused(tmp_path: Path) -> None:
    source = ModelSource(str(tmp_path))
    with pytest.raises(ValueError, match=r"folder with a config\.json.* has none\."):
        load_config(source)
    (tmp_path / "small.gguf").touch()
    with pytest.raises(ValueError, match=r"has none: give .* such as 'small\.gguf'"):
        load_config(source)


def test_folder_without_a_tokenizer_is_refused(llama: str, tmp_path: Path) -> None:
    shutil.copy(Path(llama, "config.json"), tmp_path)
    with pytest.raises(ValueError, match=r"holds a tokenizer too.*save_pretrained"):
        load_tokenizer(ModelSource(str(tmp_path)))


def test_hub_that_cannot_be_reached_is_not_asked_for_each_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "plug_sklearn.embedding.models._sources.is_hub_reachable", lambda: False
    )
    _, arguments = ModelSource("nobody/model").loading_arguments()
    assert arguments["local_files_only"] is True


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


def test_identity_of_a_folder_is_the_same_in_all_releases(
    folder: Path, store: Path
) -> None:
    """Stores hold activations under this name, which must not change."""
    whole = blake2b(digest_size=16)
    for name in ("config.json", "model.safetensors"):
        digest = blake2b((folder / name).read_bytes(), digest_size=16).hexdigest()
        whole.update(f"{name}:{digest};".encode())
    assert digest_files(folder, store) == whole.hexdigest()


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
    monkeypatch.delattr("plug_sklearn.embedding.models._sources._digest_file")
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
    find_commit = "plug_sklearn.embedding.models._sources.find_commit"
    monkeypatch.setattr(find_commit, lambda source: "0123abcd")
    assert identify_model(ModelSource("org/model"), tmp_path) == "org/model@0123abcd"


def test_origin_of_a_hub_model_is_its_commit(llama: str, tmp_path: Path) -> None:
    found_in = fill_cache(tmp_path, "org/model", llama)
    source = ModelSource("org/model", model_kwargs=found_in)
    assert find_origin(source) == COMMIT


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


@pytest.mark.parametrize("earlier", ["0", "g"])
def test_a_change_is_told_once(tmp_path: Path, earlier: str) -> None:
    """Digests are hexadecimal: one of these sorts before them, and one after."""
    (tmp_path / "config.json").write_text("{}")
    source = ModelSource(str(tmp_path))
    warn_of_change(source, str(find_origin(source)))
    with pytest.warns(ProvenanceWarning, match=f"it was {earlier}, and is"):
        warn_of_change(source, earlier)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_change(source, earlier)
    assert not caught
