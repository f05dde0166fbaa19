import datetime
from collections.abc import Callable
from typing import Any

import pytest
from _tokenizers import build_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

from plug_sklearn.embedding.prompts import (
    ChatTurn,
    PromptOptions,
    PromptReader,
    render_turn,
)

Build = Callable[..., PreTrainedTokenizerFast]
TOKENIZER = build_tokenizer("bytes")
WHITE_SPACE = " \t\n\r"
TRIMS = ChatTurn("<", ">", WHITE_SPACE, WHITE_SPACE)
CONTENTS = [
    "{{ message.content }}",
    "{{ message.content | trim }}",
    "{{ message.content.strip() }}",
    "{{ message.content.rstrip() }}",
    "{{ message.content.lstrip() }}",
    "{{ message.content.strip('\\n') }}",
    "{{ message.content.rstrip(' ') }}",
]
AROUND = ["<|im_start|>user\n{}<|im_end|>\n", "[INST] {} [/INST]", "\n\n{}\t\n", "{}"]


def make_template(template: str, turn: ChatTurn | None = None) -> Any:  # noqa: ANN401 - private
    options = PromptOptions(prompt_template=template, chat_template=turn is not None)
    return PromptReader(TOKENIZER, options, None, turn=turn).template


def build_template(content: str, around: str) -> str:
    before, after = around.split("{}")
    # The environment of chat templates eats a line break after a block.
    return (
        "{% for message in messages %}"
        f"{{{{ {before!r} }}}}{content}{{{{ {after!r} }}}}"
        "{% endfor %}"
    )


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize(
    "text", ["Hi", " Hi\n", "\n Hi \n", "\tHi\r\n ", "", " ", "{{ x }}"]
)
@pytest.mark.parametrize("template", [None, " Q: {text} ", "{text}\n"])
def test_filled_template_is_what_the_chat_template_renders(
    byte_tokenizer: Build, content: str, around: str, text: str, template: str | None
) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = build_template(content, around)
    message = text if template is None else template.replace("{text}", text)
    turn = [{"role": "user", "content": message}]
    rendered = tokenizer.apply_chat_template(turn, tokenize=False)
    filled = make_template(template or "{text}", render_turn(tokenizer))
    assert filled.fill(text) == rendered


def test_each_end_is_stripped_by_itself(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "<{{ messages[0].content.rstrip() }}>"
    assert render_turn(tokenizer) == ChatTurn("<", ">", "", " \t\n\r")


def test_missing_chat_template_is_an_error(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match=r"'chat_template'.*must be False"):
        render_turn(tokenizer)


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[0].content }}{{ messages[0].content }}",
        "{{ messages[0].content | upper }}",
        "no message",
        "{{ messages[0].content | replace('\\n', ' ') }}",
    ],
)
def test_chat_template_that_changes_the_message_is_refused(
    byte_tokenizer: Build, template: str
) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(ValueError, match="does not write a user's message once"):
        render_turn(tokenizer)


def test_clock_that_goes_on_while_a_turn_is_rendered_changes_nothing(
    byte_tokenizer: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter(range(60))

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> "Clock":
            return cls(2024, 7, 26, 12, 0, next(seconds))

    monkeypatch.setattr(chat_template_utils, "datetime", Clock)
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "{{ strftime_now('%S') }} {{ messages[0].content | trim }}!"
    )
    assert render_turn(tokenizer) == ChatTurn("00 ", "!", " \t\n\r", " \t\n\r")


@given(st.text(), st.text().filter(lambda template: "{text}" not in template))
def test_every_slot_is_filled_and_nothing_else(text: str, fixed: str) -> None:
    template = f"{{text}}{fixed}{{text}}"
    assert make_template(template).fill(text) == text + fixed + text


@given(st.text(alphabet="a \n"), st.sampled_from(["{text}", " {text}", "Q {text}\n"]))
def test_message_is_stripped_at_its_ends_only(text: str, template: str) -> None:
    message = template.replace("{text}", text).strip()
    assert make_template(template, TRIMS).fill(text) == f"<{message}>"


@given(
    st.text(alphabet="ab \n", min_size=1).filter(str.strip),
    st.sampled_from(
        ["{text}", " {text}", "Q: {text}\nA:", "{text}, {text}", "{text} "]
    ),
    st.sampled_from([ChatTurn("<", ">"), TRIMS, ChatTurn("<", ">", "", "\n")]),
)
def test_fixed_strings_and_texts_make_the_prompt(
    text: str, template: str, turn: ChatTurn
) -> None:
    filled = make_template(template, turn)
    assert filled.split(text).text == filled.fill(text)


@pytest.mark.parametrize("text", ["", " ", "\n\n"])
def test_blank_text_leaves_the_fixed_strings_as_they_are(text: str) -> None:
    rendered = make_template("{text} is it?", TRIMS).split(text)
    assert rendered.fixed == ("<", " is it?>")
    assert rendered.contents == ("",)
