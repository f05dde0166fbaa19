from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from plug_sklearn import HFEmbeddingTransformer
from plug_sklearn.embedding.prompts import (
    PromptOptions,
    PromptReader,
    refuse_empty_texts,
)

LONG = ["a long text " * 9, "another one " * 9]
SPECIAL = ["<pad>", "<pad><pad>", "<|im_end|>"]


@pytest.fixture
def reader(byte_tokenizer: Callable[..., PreTrainedTokenizerFast]) -> PromptReader:
    options = PromptOptions(max_length=9, token_filter="special")
    return PromptReader(byte_tokenizer(), options, None)


def test_counts_are_told_once(reader: PromptReader) -> None:
    for texts in (["short"], LONG, ["Lima"], SPECIAL):
        reader.read(texts)
    with pytest.warns(UserWarning) as caught:
        reader.tell_changes([])
    cut, emptied = (str(warning.message) for warning in caught)
    assert cut.startswith("2 of 7 distinct texts are longer than 9 tokens")
    assert emptied.startswith("3 of 7 distinct texts have no token left")
    reader.tell_changes([])


def test_warning_points_at_the_caller(reader: PromptReader) -> None:
    reader.read(LONG)
    with pytest.warns(UserWarning) as caught:
        reader.tell_changes([])
    assert caught[0].filename == __file__


def test_nothing_changed_is_nothing_told(reader: PromptReader) -> None:
    reader.read(["short", "Lima"])
    reader.tell_changes([])


def test_many_empty_texts_are_counted_and_the_first_five_listed() -> None:
    texts = ["a", *[" "] * 7]
    with pytest.raises(ValueError, match=r"7 of 8 .* \[1, 2, 3, 4, 5, \.\.\.\]"):
        refuse_empty_texts(texts, [" "])


def test_an_empty_text_that_has_a_token_is_read(bert: str) -> None:
    embedder = HFEmbeddingTransformer(bert, device="cpu")
    assert embedder.fit_transform(["", "a"]).shape[0] == 2


@pytest.mark.parametrize("stored", [True, False])
def test_empty_texts_are_refused_before_any_is_computed(
    llama: str, tmp_path: Path, stored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compute(*_: Any, **__: Any) -> None:  # noqa: ANN401
        raise AssertionError("computed")

    monkeypatch.setattr("plug_sklearn.embedding._embed.compute_in_jobs", compute)
    store = tmp_path / "store" if stored else None
    embedder = HFEmbeddingTransformer(llama, device="cpu", store=store, batch_tokens=8)
    texts = [*(f"text {n}" for n in range(50)), ""]
    with pytest.raises(ValueError, match=r"1 of 51 texts .* positions \[50\]"):
        embedder.fit_transform(texts)
    assert not (tmp_path / "store").exists()
