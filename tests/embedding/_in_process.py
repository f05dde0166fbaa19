"""What the package keeps in this process, for tests that look at it or start afresh."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from plug_sklearn.embedding import _embed
from plug_sklearn.embedding._language_model import LanguageModel
from plug_sklearn.embedding.models import LoadedModel, _gguf, _loading
from plug_sklearn.embedding.passes import Request


def list_models() -> dict[str, LoadedModel]:
    """The models in memory by their names, the last used one last."""
    # The state of a local folder stands beside its source; a hub id has none.
    sources = [
        state[0] if isinstance(state, tuple) else state
        for state, *_ in _loading._MODELS.items
    ]
    kept = _loading._MODELS.items.values()
    return {source.name: one for source, one in zip(sources, kept, strict=True)}


def record_loads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The models whose weights are loaded from now on."""
    loads: list[Any] = []
    load = _loading._load_backbone
    monkeypatch.setattr(
        _loading, "_load_backbone", lambda *args: loads.append(args) or load(*args)
    )
    return loads


def record_computed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Request]]:
    """Texts that models compute from now on, each with what is read of it."""
    seen: list[tuple[str, Request]] = []
    compute = LanguageModel.compute

    def spy(self: LanguageModel, texts: Sequence[str], asked: Request) -> Iterator[Any]:
        seen.extend((text, asked) for text in texts)
        return compute(self, texts, asked)

    monkeypatch.setattr(LanguageModel, "compute", spy)
    return seen


def forget_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no text count as read before, and the hint at a store as given."""
    monkeypatch.setattr(_embed, "_seen", {})
    monkeypatch.setattr(_embed, "_hinted", [])


def forget_files() -> None:
    """Forget the configurations and tokenizers that have been read."""
    _loading._CONFIGS.items.clear()
    _loading._TOKENIZERS.items.clear()


def forget_conversions() -> None:
    """Forget which GGUF files have been converted, as in a new process."""
    _gguf._convert.cache_clear()
