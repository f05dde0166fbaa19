import base64
import json
from itertools import pairwise
from pathlib import Path

import pytest
import transformers
from transformers.integrations.mistral import tokenizer as mistral

from plug_sklearn.embedding.models._models import ModelSource, load_tokenizer
from plug_sklearn.embedding.models._tekken import complete_tokenizer

SPECIAL = ["<unk>", "<s>", "</s>", "[INST]", "<pad>"]
PIECES = [*(bytes([i]) for i in range(256)), b"he", b"ll", b"hell", b"or", b"ld"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folder of a Mistral model whose tokenizer is its own file alone."""
    transformers.MistralConfig(vocab_size=300).save_pretrained(tmp_path)
    tekken = {
        "config": {
            "pattern": r"\s?\p{L}+|\s+|[^\s\p{L}]+",
            "num_vocab_tokens": len(PIECES),
            "default_vocab_size": len(PIECES) + len(SPECIAL),
            "default_num_special_tokens": len(SPECIAL),
            "version": "v3",
        },
        "vocab": [
            {"rank": rank, "token_bytes": base64.b64encode(piece).decode()}
            for rank, piece in enumerate(PIECES)
        ],
        "special_tokens": [
            {"rank": rank, "token_str": text, "is_control": True}
            for rank, text in enumerate(SPECIAL)
        ],
    }
    (tmp_path / "tekken.json").write_text(json.dumps(tekken))
    return tmp_path


def merge_pieces(text: bytes) -> list[int]:
    """Merge neighbours into the piece of the lowest rank until none is known."""
    pieces = [bytes([byte]) for byte in text]
    while True:
        joined = [a + b for a, b in pairwise(pieces)]
        known = [piece for piece in joined if piece in PIECES]
        if not known:
            return [len(SPECIAL) + PIECES.index(piece) for piece in pieces]
        place = joined.index(min(known, key=PIECES.index))
        pieces[place : place + 2] = [joined[place]]


def test_text_of_mistral_s_own_file_begins_with_its_first_token(folder: Path) -> None:
    tokenizer = load_tokenizer(ModelSource(str(folder)))
    expected = [1, *merge_pieces(b"hello"), *merge_pieces(b" world")]
    assert tokenizer("hello world")["input_ids"] == expected
    assert tokenizer("hello", add_special_tokens=False)["input_ids"] == expected[1:3]
    assert tokenizer("[INST]")["input_ids"] == [1, 3]


def test_special_tokens_of_mistral_s_own_file_have_names(folder: Path) -> None:
    tokenizer = load_tokenizer(ModelSource(str(folder)))
    assert tokenizer.bos_token_id == 1
    assert tokenizer.eos_token_id == 2
    assert tokenizer.pad_token_id == 4


def test_mistral_s_own_package_changes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load_tokenizer(ModelSource(str(folder)))
    monkeypatch.setattr(mistral, "is_mistral_common_available", lambda: True)
    (folder / "notes.txt").write_text("so that it is loaded again")
    tokenizer = load_tokenizer(ModelSource(str(folder)))
    assert tokenizer is not before
    assert type(tokenizer) is type(before)


def test_other_tokenizers_stay(llama: str) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(llama)
    before = tokenizer.backend_tokenizer.to_str()
    complete_tokenizer(tokenizer)
    assert tokenizer.backend_tokenizer.to_str() == before
