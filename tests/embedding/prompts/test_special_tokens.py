from collections.abc import Callable
from typing import Any

from _tokenizers import build_tokenizer
from transformers import PreTrainedTokenizerFast

from plug_sklearn.embedding.prompts import PromptOptions, PromptReader

Build = Callable[..., PreTrainedTokenizerFast]


def special_tokens_of(tokenizer: PreTrainedTokenizerFast) -> Any:  # noqa: ANN401
    return PromptReader(tokenizer, PromptOptions(), None).special


def test_special_and_added_tokens_are_counted(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer(wraps=True)
    ids = tokenizer("a <|im_end|> b <think>")["input_ids"]
    assert special_tokens_of(tokenizer).count(ids) == 4


def test_tokens_that_the_tokenizer_adds_are_known(byte_tokenizer: Build) -> None:
    assert special_tokens_of(byte_tokenizer(wraps=True)).added == ([3], [4])
    assert special_tokens_of(byte_tokenizer()).added == ([], [])


def test_spellings_are_found_in_any_case(byte_tokenizer: Build) -> None:
    found = special_tokens_of(byte_tokenizer()).spelling.findall("a <PAD><|im_end|>")
    assert found == ["<PAD>", "<|im_end|>"]


def test_context_begins_at_the_last_special_token(byte_tokenizer: Build) -> None:
    special = special_tokens_of(byte_tokenizer())
    assert special.find_context("<pad>a<|im_start|>user\n") == "<|im_start|>user\n"
    assert special.find_context("user\n") == "user\n"


def test_tokens_that_strip_what_is_beside_them_are_known() -> None:
    right = special_tokens_of(build_tokenizer("bytes", rstrip=True))
    assert right.strips_right_of("a <|user|>\n")
    assert not right.strips_right_of("<|user|> a")
    assert not right.strips_left_of("<|end|>")
    left = special_tokens_of(build_tokenizer("bytes", lstrip=True))
    assert left.strips_left_of("\n<|end|> a")
    assert not left.strips_right_of("<|user|>")
