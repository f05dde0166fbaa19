"""What a chat template writes around a user's message, rendered once."""

import os.path
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

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

    Attributes
    ----------
    start, end : str
        What the template writes before and after the message.
    stripped_left, stripped_right : str
        The characters of ``WHITE_SPACE`` that the template strips from the beginning
        and from the end of the message.
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


def render_turn(tokenizer: PreTrainedTokenizerBase) -> ChatTurn:
    """Render a tokenizer's chat template around a user's message, as of now.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        The model's own.

    Returns
    -------
    ChatTurn
        Another one at another time, for a template that reads the clock.

    Raises
    ------
    ValueError
        If the tokenizer has no chat template, or the template does not write a user's
        message once as it is.
    """
    if not tokenizer.chat_template:
        raise ValueError(
            "The 'chat_template' parameter of HFEmbeddingTransformer must be False for "
            "a model whose tokenizer has no chat template. Got True instead."
        )
    start, end = _render_around(tokenizer, "")
    left = right = ""
    for character in WHITE_SPACE:
        before, after = _render_around(tokenizer, character * _REPEATED)
        if _is_stripped(character, start[::-1], before[::-1]):
            left += character
        if _is_stripped(character, end, after):
            right += character
    return ChatTurn(start, end, left, right)


def describe_difference(before: ChatTurn, now: ChatTurn) -> str:
    """Show where two turns differ first, in a few words."""
    if (before.start, before.end) == (now.start, now.end):
        return "it strips the ends of messages otherwise"
    then, found = before.start + before.end, now.start + now.end
    place = len(os.path.commonprefix([then, found]))  # noqa: RUF071 - of characters
    shown = slice(max(0, place - 20), place + 20)
    return f"then {then[shown]!r}, now {found[shown]!r}"


def _render_around(
    tokenizer: PreTrainedTokenizerBase, white_space: str
) -> tuple[str, str]:
    """Render a message between white space; gives what stands before and after it."""
    content = f"{white_space}{_MESSAGE}{white_space}"
    turn = [{"role": "user", "content": content}]
    rendered = str(tokenizer.apply_chat_template(turn, tokenize=False))
    outside = rendered.split(_MESSAGE)
    if len(outside) != 2:
        raise _refuse_template()
    return outside[0], outside[1]


def _is_stripped(character: str, outside: str, with_white_space: str) -> bool:
    """Tell whether white space is gone, from what stands next to the message.

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
        "The model's chat template does not write a user's message once as it is; "
        "spell the turn in 'prompt_template' instead of chat_template=True."
    )
