from pathlib import Path

import pytest

from plug_sklearn.persistence._files import name_file, naming, write_file


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("probe", "probe.json"),
        ("probe.v2", "probe.v2.json"),
        ("a/probe.safetensors", "a/probe.json"),
        ("a.pt/probe.pth", "a.pt/probe.json"),
    ],
)
def test_only_suffixes_of_artifacts_are_replaced(path: str, expected: str) -> None:
    assert name_file(path, ".json") == Path(expected)


@pytest.mark.parametrize("path", ["", ".", "..", "/", "a/.."])
def test_a_path_without_a_name_is_refused_as_such(path: str) -> None:
    with pytest.raises(ValueError, match=r"'path' of an artifact must end in the name"):
        name_file(path, ".json")


@pytest.mark.parametrize("path", [None, 3, b"probe"])
def test_a_path_of_another_type_is_refused_as_such(path: object) -> None:
    with pytest.raises(TypeError, match=r"must be a str or a Path. Got (No|int|byt)"):
        name_file(path, ".json")  # type: ignore[arg-type]  # what is tested


def test_a_message_does_not_quote_a_whole_file() -> None:
    with pytest.raises(
        ValueError, match=r"^probe cannot .* it has x+ \.\.\. x+ here"
    ) as e:
        with naming(Path("probe")):
            raise ValueError(f"it has {'x' * 10**6} here")
    assert len(str(e.value)) < 1100


def test_a_write_that_fails_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "probe.json"
    write_file(path, b"old")

    def fail(descriptor: int) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as full:
        full.setattr("os.fsync", fail)
        with pytest.raises(OSError, match="no space left"):
            write_file(path, b"new and longer")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    write_file(path, b"new")
    assert path.read_bytes() == b"new"
