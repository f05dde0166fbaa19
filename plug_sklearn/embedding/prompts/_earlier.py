"""Whether prompts are what earlier releases made of the same texts and options."""

from plug_sklearn.embedding.prompts._prompts import PromptReader
from plug_sklearn.embedding.prompts._turns import WHITE_SPACE, is_fixed, render_turn


def makes_earlier_prompts(reader: PromptReader) -> bool:
    """Tell whether a reader's prompts are those of release 0.1.0 for every text.

    Parameters
    ----------
    reader : PromptReader
        Of any options.

    Returns
    -------
    bool
        False where it is not known.
    """
    turn_is_same = not reader.options.chat_template or _has_earlier_turn(reader)
    return turn_is_same and (
        reader.literal is None or _encodes_literally_as_earlier(reader)
    )


def _has_earlier_turn(reader: PromptReader) -> bool:
    """Tell whether a chat template wrote this turn at any time.

    Earlier, a message was stripped at both ends or at none, and a template that strips
    it was not seen to do so where it writes spaces around it.
    """
    turn = reader.frame.turn
    stripped = {turn.stripped_left, turn.stripped_right}
    in_spaces = turn.start.endswith(" ") and turn.end.startswith(" ")
    was_seen = stripped == {""} or (stripped == {WHITE_SPACE} and not in_spaces)
    tokenizer = reader.tokenizer
    return was_seen and is_fixed(tokenizer) and render_turn(tokenizer) == turn


def _encodes_literally_as_earlier(reader: PromptReader) -> bool:
    """Tell whether a text alone is tokenized in the same pieces.

    Earlier, each piece was tokenized as if it began a text, which adds a space for some
    tokenizers, and what is around a text had other tokens where the text was cut.
    """
    literal = reader.literal
    return (
        literal is not None
        and literal.frame.fixed == ["", ""]
        and (literal.reads_alike_anywhere())
    )
