from collections.abc import Callable

import pytest
from transformers import PreTrainedTokenizerFast

from plug_sklearn.embedding.prompts import PromptOptions, PromptReader

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
