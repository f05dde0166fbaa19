"""Outcomes of trials, remembered for processes to come."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from plug_sklearn import HFEmbeddingTransformer
from plug_sklearn.embedding import release_models
from plug_sklearn.embedding.passes import _strategy, _trial_memory

TEXTS = ["Gold is a metal.", "Gold is blue.", "Lima"]


@pytest.fixture
def model(llama: str, tmp_path: Path) -> str:
    return str(shutil.copytree(llama, tmp_path / "model"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(_trial_memory, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The models that are tried."""
    models: list[object] = []
    run = _strategy._try

    def spy(forward: Any) -> Any:  # noqa: ANN401
        models.append(forward)
        return run(forward)

    monkeypatch.setattr(_strategy, "_try", spy)
    return models


def embed_anew(model: str, **parameters: object) -> NDArray[np.float32]:
    """Embed texts as a new process would, which has loaded no model."""
    release_models()
    embedder = HFEmbeddingTransformer(model, device="cpu", **parameters)
    return embedder.fit_transform(TEXTS)


def test_model_is_tried_once_for_all_processes(
    model: str, cache: Path, tried: list[object]
) -> None:
    found = [embed_anew(model) for _ in range(3)]
    assert len(tried) == 1
    np.testing.assert_array_equal(found[1:], [found[0]] * 2)


def change_files(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Path(model, "config.json")
    config.write_text(config.read_text() + "\n")


def change_version(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_trial_memory, "find_version", lambda name: "0.0")


def change_code(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_trial_memory, "_digest_code", lambda: "other code")


@pytest.mark.parametrize("change", [change_files, change_version, change_code])
def test_what_has_changed_is_tried_again(
    model: str,
    cache: Path,
    tried: list[object],
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[str, pytest.MonkeyPatch], None],
) -> None:
    embed_anew(model)
    change(model, monkeypatch)
    embed_anew(model)
    assert len(tried) == 2


@pytest.mark.parametrize(
    "parameters",
    [{"dtype": "bfloat16"}, {"attn_implementation": "eager"}, {"layers": 0}],
)
def test_model_that_is_loaded_or_read_otherwise_is_tried_again(
    model: str, cache: Path, tried: list[object], parameters: dict[str, object]
) -> None:
    embed_anew(model)
    embed_anew(model, **parameters)
    assert len(tried) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-5],
        lambda data: data.replace(b"tries", b"tried"),
        lambda data: data.replace(b'"n_calls": 3', b'"n_calls": 4'),
        lambda data: b"\xff\xfe" * 20,
        lambda data: b"[" * 100_000,
        None,
    ],
)
def test_damaged_memory_is_none(
    model: str,
    cache: Path,
    tried: list[object],
    damage: Callable[[bytes], bytes] | None,
) -> None:
    expected = embed_anew(model)
    (file,) = cache.rglob("*.json")
    data = file.read_bytes()
    if damage is None:
        file.unlink()
        file.mkdir()
    else:
        assert damage(data) != data
        file.write_bytes(damage(data))
    np.testing.assert_array_equal(embed_anew(model), expected)
    assert len(tried) == 2


def test_unknown_outcome_of_an_intact_file_is_none(
    model: str, cache: Path, tried: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = [{"strategy": "magic"}, {}, {"strategy": "tries", "unknown": 1}]
    for outcome in outcomes:
        monkeypatch.setattr(
            _strategy, "recall_outcome", lambda description, found=outcome: found
        )
        embed_anew(model)
    assert len(tried) == len(outcomes)


def test_failure_is_not_remembered(
    model: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = _strategy._compare_strategies
    monkeypatch.setattr(
        _strategy,
        "_compare_strategies",
        lambda *args: replace(compare(*args), failed=True),
    )
    embed_anew(model)
    assert not list(cache.rglob("*"))
