from pathlib import Path

import pytest

from plug_sklearn.persistence._files import name_file, write_file


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
