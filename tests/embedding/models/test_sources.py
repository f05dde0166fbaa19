from pathlib import Path

import pytest

from plug_sklearn.embedding.models import ModelSource
from plug_sklearn.embedding.models._sources import LRUCache, explain_missing_files


def test_what_is_missing_is_named_with_how_to_get_it() -> None:
    source = ModelSource("nobody/model", "v1", commit="0123")
    with pytest.raises(OSError) as raised, explain_missing_files(source):
        raise OSError("no connection")
    message = str(raised.value)
    assert "'nobody/model' (revision 'v1', commit 0123)" in message
    assert "'hf download nobody/model --revision 0123'" in message
    assert str(raised.value.__cause__) == "no connection"


@pytest.mark.parametrize("name", ["/no/such/folder", "./models/x", "a/b/c", "~/x", "."])
@pytest.mark.parametrize("parameter", ["model_name", "adapter"])
def test_path_of_nothing_is_one_error_without_a_cause(
    name: str, parameter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = ModelSource(name, parameter=parameter)
    if name == ".":
        # A folder that is there is looked into.
        assert source.loading_arguments()[0] == name
        return
    message = (
        rf"'{parameter}' parameter .* existing folder.*{name}' instead, which does"
    )
    with pytest.raises(FileNotFoundError, match=message) as raised:
        with explain_missing_files(source):
            source.loading_arguments()
    assert raised.value.__cause__ is None


def test_errors_of_a_model_that_is_there_stay(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match=r"^no memory$"),
        explain_missing_files(ModelSource(str(tmp_path))),
    ):
        raise OSError("no memory")


def test_an_adapter_that_is_missing_is_called_one() -> None:
    source = ModelSource("nobody/adapter", parameter="adapter")
    message = "adapter 'nobody/adapter'.*the 'adapter' parameter"
    with pytest.raises(OSError, match=message), explain_missing_files(source):
        raise OSError("no connection")


def test_what_was_asked_for_longest_ago_is_dropped_first() -> None:
    cache = LRUCache(size=2)
    loads: list[str] = []
    for key in ("a", "b", "a", "c", "a", "b"):
        assert cache.get(key, lambda key=key: loads.append(key) or key) == key
    assert loads == ["a", "b", "c", "b"]
