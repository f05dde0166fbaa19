from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from plug_sklearn.embedding.prompts._truncation import make_cutter

PIECES = st.lists(st.text(max_size=8), min_size=1, max_size=5).filter(any)


@pytest.fixture(scope="module")
def tokenizer(
    byte_tokenizer: Callable[..., PreTrainedTokenizerFast],
) -> PreTrainedTokenizerFast:
    return byte_tokenizer()


@given(PIECES)
def test_more_tokens_keep_more_of_the_text_up_to_all_of_it(
    tokenizer: PreTrainedTokenizerFast, pieces: list[str]
) -> None:
    text = "".join(pieces)
    encoded = tokenizer(pieces, add_special_tokens=False)["input_ids"]
    n_tokens = sum(len(ids) for ids in encoded)
    left, right = (make_cutter(tokenizer, pieces, side) for side in ("left", "right"))
    ends = [left(n) for n in range(1, n_tokens + 1)]
    beginnings = [right(n) for n in range(1, n_tokens + 1)]
    assert all(text.endswith(end) for end in ends)
    assert all(text.startswith(beginning) for beginning in beginnings)
    for kept in (ends, beginnings):
        assert kept[0]
        assert kept[-1] == text
        assert [len(part) for part in kept] == sorted(len(part) for part in kept)


def test_each_piece_is_tokenized_by_itself(tokenizer: PreTrainedTokenizerFast) -> None:
    whole, pieces = ["<think>"], ["<", "think>"]
    assert make_cutter(tokenizer, whole, "left")(1) == "<think>"
    assert make_cutter(tokenizer, pieces, "left")(1) == ">"
    assert make_cutter(tokenizer, pieces, "right")(1) == "<"
