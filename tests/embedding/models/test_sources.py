from collections.abc import Callable
from pathlib import Path

import pytest
import transformers

from plug_sklearn.embedding.models import ModelSource, load_config

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
    with pytest.raises(OSError, match=r"^no memory$"):
        load_config(ModelSource(str(tmp_path)))


def test_an_adapter_that_is_missing_is_called_one(fail: Fail) -> None:
    fail("no connection")
    message = "adapter 'nobody/adapter'.*the 'adapter' parameter"
    with pytest.raises(OSError, match=message):
        load_config(ModelSource("nobody/adapter", parameter="adapter"))
