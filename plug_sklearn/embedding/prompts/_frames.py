"""What stands around a text: the user's template inside the model's chat turn."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

SLOT = "{text}"

# Stands for the content while a chat template is rendered; from Unicode's private
# use area, so that no template spells it.
_PLACEHOLDER = "\ue000content\ue001"


@dataclass(frozen=True)
class PromptFrame:
    """The fixed strings around a text.

    Attributes
    ----------
    template : str
        Holds ``{text}`` at least once.
    turn_start, turn_end : str
        What the chat template writes before and after a user's message.
    strips : bool
        Whether the chat template strips a message's outer white space.
    """

    template: str = SLOT
    turn_start: str = ""
    turn_end: str = ""
    strips: bool = False

    def split(self, text: str) -> list[tuple[str, bool]]:
        """Give the prompt in pieces, each with whether it is the text's own."""
        fixed = self.template.split(SLOT)
        pieces = [text] * (2 * len(fixed) - 1)
        pieces[::2] = fixed
        if self.strips:
            _strip_outside(pieces)
        pieces[0] = self.turn_start + pieces[0]
        pieces[-1] += self.turn_end
        return [(piece, bool(place % 2)) for place, piece in enumerate(pieces)]

    def fill(self, text: str) -> str:
        """Give the whole prompt."""
        return "".join(piece for piece, _ in self.split(text))


def frame_texts(
    tokenizer: PreTrainedTokenizerBase, template: str | None, chat: bool
) -> PromptFrame:
    """Find what stands around each text.

    The chat template is rendered once, around a placeholder, and not once a text.

    Raises
    ------
    ValueError
        If a chat template is asked for and the tokenizer has none, or it does not
        render a user's message as it is.
    """
    template = SLOT if template is None else template
    if not chat:
        return PromptFrame(template)
    if not tokenizer.chat_template:
        raise ValueError(
            "The 'chat_template' parameter of HFEmbeddingTransformer must be False for "
            "a model whose tokenizer has no chat template. Got True instead."
        )
    # White space around the placeholder shows whether the template strips it.
    rendered = _render_turn(tokenizer, f" {_PLACEHOLDER} ")
    strips = f" {_PLACEHOLDER} " not in rendered
    outside = rendered.split(_PLACEHOLDER if strips else f" {_PLACEHOLDER} ")
    if len(outside) != 2:
        raise ValueError(
            "The model's chat template does not write a user's message once as it is; "
            "spell the turn in 'prompt_template' instead of chat_template=True."
        )
    turn_start, turn_end = outside
    return PromptFrame(template, turn_start, turn_end, strips)


def _render_turn(tokenizer: PreTrainedTokenizerBase, content: str) -> str:
    turn = [{"role": "user", "content": content}]
    return str(tokenizer.apply_chat_template(turn, tokenize=False))


def _strip_outside(pieces: list[str]) -> None:
    """Strip the white space at both ends of the pieces' concatenation, in place."""
    for place, piece in enumerate(pieces):
        pieces[place] = piece.lstrip()
        if pieces[place]:
            break
    for place, piece in reversed(list(enumerate(pieces))):
        pieces[place] = piece.rstrip()
        if pieces[place]:
            break
