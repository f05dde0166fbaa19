"""Memory that is free for activations, and errors that name rows of X."""

import re
from pathlib import Path
from typing import Any

import pytest

from plug_sklearn import HFEmbeddingTransformer

ROWS = "plug_sklearn.embedding._rows"
SAID = [{"role": "user", "content": "Gold."}]


@pytest.mark.parametrize(("cached", "fits"), [(0, False), (2**20, True)])
def test_files_in_a_container_s_cache_count_as_free(
    llama: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cached: int,
    fits: bool,
) -> None:
    written = {
        "_LIMIT": str(2**30),
        "_USED": str(2**30 - 10),
        "_USES": f"anon 1\ninactive_file {cached}\nactive_file 7",
    }
    for name, text in written.items():
        path = tmp_path / name
        path.write_text(text)
        monkeypatch.setattr(f"{ROWS}.{name}", path)
    embedder = HFEmbeddingTransformer(llama, device="cpu").fit(["Gold."])
    if fits:
        assert embedder.transform(["Gold."]).shape == (1, 3, 1, 16)
    else:
        with pytest.raises(MemoryError, match=r"0\.0 GiB of memory are free"):
            embedder.transform(["Gold."])


@pytest.mark.parametrize(
    ("X", "parameters", "message"),
    [
        (["a", None, "b", 3.5], {}, "Got 2 other rows instead, at positions [1, 3]"),
        (
            ["a", "b", SAID],
            {"roles": ["assistant"]},
            "Got 3 of 3 texts without one, at positions [0, 1, 2]",
        ),
        (
            ["a", SAID, "b"],
            {"generation_prompt": True},
            "and 2 strings, at positions [0, 2]",
        ),
        (
            ["a", SAID],
            {"max_length": 3},
            "Got a limit of 3 instead for "
            '[{"role": "user", "content": "Gold."}], at position 1.',
        ),
    ],
)
def test_errors_about_texts_name_all_of_their_rows(
    llama: str, X: list[Any], parameters: dict[str, Any], message: str
) -> None:
    embedder = HFEmbeddingTransformer(llama, device="cpu", **parameters)
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        embedder.fit(X).transform(X)


def test_strings_after_conversations_get_no_opening(llama: str) -> None:
    embedder = HFEmbeddingTransformer(llama, generation_prompt=True, device="cpu")
    embedder.fit([SAID])
    with pytest.raises(ValueError, match=r"'generation_prompt' parameter.*1 strings"):
        embedder.selected_tokens(["Gold."])
