from pathlib import Path
from typing import Any

import pytest

from plug_sklearn import HFEmbeddingTransformer
from plug_sklearn.embedding.prompts import refuse_empty_texts


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
