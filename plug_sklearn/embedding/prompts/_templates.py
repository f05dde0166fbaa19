"""Prompt templates and chat templates, which surround a text."""

import os.path
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

#: What a text replaces in a template.
FIELD = "{text}"

#: Characters that are tried one by one: a template strips all of these, some, or none.
WHITE_SPACE = " \t\n\r"
_REPEATED = 3

# Stands for the message while the template is rendered. Its ends are from Unicode's
# private use area, so that no template spells it; a template that changes white space
# inside a message changes this one.
_MESSAGE = "\ue000a user's\n\n \tmessage\ue001"


@dataclass(frozen=True)
class ChatTurn:
    """A user's turn as a chat template writes it.

    The template writes ``start`` and ``end`` before and after the message, and strips
    the characters of ``WHITE_SPACE`` in ``stripped_left`` and ``stripped_right`` from
    it.
    """

    start: str = ""
    end: str = ""
    stripped_left: str = ""
    stripped_right: str = ""

    def strip_left(self, message: str) -> str:
        """Strip the beginning of a message as the template does."""
        return message.lstrip(_name_characters(self.stripped_left))

    def strip_right(self, message: str) -> str:
        """Strip the end of a message as the template does."""
        return message.rstrip(_name_characters(self.stripped_right))


@dataclass(frozen=True)
class RenderedPrompt:
    """A prompt, in the pieces that templates and the user wrote.

    ``fixed`` are the n + 1 strings of templates before, between and after the n
    ``contents`` of the user. ``owners`` are the numbers of the messages that the
    contents belong to; 0 for a plain text.
    """

    fixed: tuple[str, ...]
    contents: tuple[str, ...]
    owners: tuple[int, ...]

    @property
    def text(self) -> str:
        """The whole prompt."""
        pairs = zip(self.fixed, (*self.contents, ""), strict=True)
        return "".join(piece for pair in pairs for piece in pair)

    @property
    def spans(self) -> list[tuple[int, int]]:
        """First and end position of each content in the prompt, in characters."""
        spans, end = [], 0
        for fixed, content in zip(self.fixed, self.contents, strict=False):
            start = end + len(fixed)
            end = start + len(content)
            spans.append((start, end))
        return spans


@dataclass(frozen=True)
class PromptTemplate:
    """The text around every text.

    ``template`` is the user's, and holds ``{text}`` at least once. ``turn`` is what a
    chat template writes around the filled template; nothing by default.
    """

    template: str = FIELD
    turn: ChatTurn = field(default_factory=ChatTurn)

    def fill(self, text: str) -> str:
        """Return the prompt that the chat template renders for a text."""
        message = self.template.replace(FIELD, text)
        message = self.turn.strip_right(self.turn.strip_left(message))
        return f"{self.turn.start}{message}{self.turn.end}"

    @property
    def n_slots(self) -> int:
        """How often a text stands in its prompt."""
        return self.template.count(FIELD)

    @property
    def fixed(self) -> tuple[str, ...]:
        """The strings before, between and after the fields, the same for every text.

        White space that the chat template strips is not among them. Where the text
        stands at an end of the message, that end is the text's alone: a text without
        characters leaves the string beside it as it is.
        """
        fixed = self.template.split(FIELD)
        first, last = self.turn.strip_left(fixed[0]), self.turn.strip_right(fixed[-1])
        return (self.turn.start + first, *fixed[1:-1], last + self.turn.end)

    def split(self, text: str) -> RenderedPrompt:
        """Split the prompt of a text; texts at the ends of the message are stripped."""
        fixed = self.template.split(FIELD)
        contents = [text] * self.n_slots
        if not self.turn.strip_left(fixed[0]):
            contents[0] = self.turn.strip_left(contents[0])
        if not self.turn.strip_right(fixed[-1]):
            contents[-1] = self.turn.strip_right(contents[-1])
        return RenderedPrompt(self.fixed, tuple(contents), (0,) * self.n_slots)


def render_turn(
    tokenizer: PreTrainedTokenizerBase, *, generation_prompt: bool = False
) -> ChatTurn:
    """Render a tokenizer's chat template around a user's message, as of now.

    With ``generation_prompt``, the turn ends with the template's opening of the answer.
    A template that prints the date returns another turn on another day. Raises a
    ValueError if the tokenizer has no chat template, or the template does not write a
    user's message once as it is.
    """
    if not tokenizer.chat_template:
        raise ValueError(
            "The 'chat_template' parameter of HFEmbeddingTransformer must be False for "
            "a model whose tokenizer has no chat template. Got True instead."
        )
    start, end = _render_around(tokenizer, "", generation_prompt)
    left = right = ""
    for character in WHITE_SPACE:
        before, after = _render_around(
            tokenizer, character * _REPEATED, generation_prompt
        )
        if _is_stripped(character, start[::-1], before[::-1]):
            left += character
        if _is_stripped(character, end, after):
            right += character
    return ChatTurn(start, end, left, right)


def describe_difference(before: ChatTurn, now: ChatTurn) -> str:
    """Show where two turns differ first, in a few words."""
    if (before.start, before.end) == (now.start, now.end):
        return "it now strips other characters from the ends of messages"
    then, found = before.start + before.end, now.start + now.end
    place = len(os.path.commonprefix([then, found]))  # noqa: RUF071 - of characters
    shown = slice(max(0, place - 20), place + 20)
    return f"then {then[shown]!r}, now {found[shown]!r}"


def _render_around(
    tokenizer: PreTrainedTokenizerBase, white_space: str, generation_prompt: bool
) -> tuple[str, str]:
    """Render a message between white space; gives what stands before and after it."""
    content = f"{white_space}{_MESSAGE}{white_space}"
    turn = [{"role": "user", "content": content}]
    rendered = str(
        tokenizer.apply_chat_template(
            turn, tokenize=False, add_generation_prompt=generation_prompt
        )
    )
    outside = rendered.split(_MESSAGE)
    if len(outside) != 2:
        raise _refuse_template()
    return outside[0], outside[1]


def _is_stripped(character: str, outside: str, with_white_space: str) -> bool:
    """Return whether white space is gone, from what stands next to the message.

    Only that is compared: what is further away may show a clock, which goes on.
    """
    own, found = (
        len(text) - len(text.lstrip(character)) for text in (outside, with_white_space)
    )
    if found - own not in (0, _REPEATED):
        raise _refuse_template()
    return found == own


def _name_characters(stripped: str) -> str | None:
    # Without characters, str.strip strips all white space, as templates do.
    return None if stripped == WHITE_SPACE else stripped


def _refuse_template() -> ValueError:
    return ValueError(
        "The model's chat template does not write a user's message once and "
        "unchanged. Write the turn in 'prompt_template' instead of using "
        "chat_template=True."
    )
