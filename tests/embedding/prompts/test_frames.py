from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from plug_sklearn.embedding.prompts._frames import PromptFrame, frame_texts

Build = Callable[..., PreTrainedTokenizerFast]


@given(st.text(), st.text().filter(lambda template: "{text}" not in template))
def test_every_slot_is_filled_and_nothing_else(text: str, fixed: str) -> None:
    template = f"{{text}}{fixed}{{text}}"
    assert PromptFrame(template).fill(text) == text + fixed + text


@pytest.mark.parametrize("text", ["Hi", " Hi\n", "", " ", "{text}", "{{ x }}"])
@pytest.mark.parametrize("template", [None, " Q: {text} ", "{text}\n"])
@pytest.mark.parametrize("trims", [True, False])
def test_chat_frame_is_what_the_chat_template_renders(
    byte_tokenizer: Build, text: str, template: str | None, trims: bool
) -> None:
    tokenizer = byte_tokenizer()
    if not trims:
        tokenizer.chat_template = tokenizer.chat_template.replace(" | trim", "")
    content = text if template is None else template.replace("{text}", text)
    turn = [{"role": "user", "content": content}]
    rendered = tokenizer.apply_chat_template(turn, tokenize=False)
    assert frame_texts(tokenizer, template, chat=True).fill(text) == rendered


def test_pieces_tell_the_text_from_what_is_around_it() -> None:
    frame = PromptFrame("Q: {text}!", turn_start="<", turn_end=">")
    assert frame.split("x") == [("<Q: ", False), ("x", True), ("!>", False)]


def test_missing_chat_template_is_an_error(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match=r"'chat_template'.*must be False"):
        frame_texts(tokenizer, None, chat=True)


def test_chat_template_that_changes_the_message_is_refused(
    byte_tokenizer: Build,
) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{{ messages[0].content }}{{ messages[0].content }}"
    with pytest.raises(ValueError, match="does not write a user's message once"):
        frame_texts(tokenizer, None, chat=True)
