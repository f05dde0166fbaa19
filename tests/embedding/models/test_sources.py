import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import transformers

from plug_sklearn.embedding.models import ModelSource, load_config, load_tokenizer

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
