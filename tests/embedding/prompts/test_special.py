from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from plug_sklearn.embedding.prompts._special import SpecialTokens

Build = Callable[..., PreTrainedTokenizerFast]
START, END, THINK = "<|im_start|>", "<|im_end|>", "<think>"


@pytest.fixture(scope="module")
def tokenizer(byte_tokenizer: Build) -> PreTrainedTokenizerFast:
    return byte_tokenizer(wraps=True)


@pytest.mark.parametrize("spelling", [START, END, "<pad>", THINK])
def test_text_cannot_spell_a_token(
    tokenizer: PreTrainedTokenizerFast, spelling: str
) -> None:
    special = SpecialTokens(tokenizer)
    text = f"a {spelling}{spelling} b"
    assert special.count(tokenizer(text, add_special_tokens=False)["input_ids"]) == 2
    ids = special.encode_literally([(text, True)], adds_special=False)
    assert special.count(ids) == 0
    assert tokenizer.decode(ids) == text


def test_template_s_own_tokens_stay_special(tokenizer: PreTrainedTokenizerFast) -> None:
    special = SpecialTokens(tokenizer)
    pieces = [(f"{START}user\n", False), (f"Hi {START}", True), (END, False)]
    ids = special.encode_literally(pieces, adds_special=False)
    assert ids.count(special.id_of[START]) == ids.count(special.id_of[END]) == 1
    assert ids[0] == special.id_of[START]
    assert ids[-1] == special.id_of[END]


@given(st.text(alphabet="ab <|>\n", max_size=12))
def test_text_without_special_tokens_is_tokenized_as_ever(
    tokenizer: PreTrainedTokenizerFast, text: str
) -> None:
    special = SpecialTokens(tokenizer)
    pieces = [(f"{START}user\n", False), (text, True), (f"{END}\n", False)]
    prompt = "".join(piece for piece, _ in pieces)
    assert special.encode_literally(pieces, True) == tokenizer(prompt)["input_ids"]


def test_tokens_that_the_tokenizer_adds_are_known(byte_tokenizer: Build) -> None:
    assert SpecialTokens(byte_tokenizer(wraps=True)).added == ([3], [4])
    assert SpecialTokens(byte_tokenizer()).added == ([], [])


def test_overlapping_spellings_cannot_spell_a_token(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["[[A]", "A]]"])
    special = SpecialTokens(tokenizer)
    ids = special.encode_literally([("[[A]]", True)], adds_special=False)
    assert special.count(ids) == 0
    assert tokenizer.decode(ids) == "[[A]]"


def test_special_token_of_one_character_is_refused(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["§"], special_tokens=True)
    special = SpecialTokens(tokenizer)
    with pytest.raises(ValueError, match=r"special token of this model, in 'a § b'"):
        special.encode_literally([("a § b", True)], adds_special=False)
