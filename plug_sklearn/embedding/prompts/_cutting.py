"""Long texts, cut by tokens."""

from collections.abc import Callable, Sequence
from itertools import accumulate

from transformers import PreTrainedTokenizerBase


def make_cutter(
    tokenizer: PreTrainedTokenizerBase, pieces: Sequence[str], side: str
) -> Callable[[int], str]:
    """Make a function of n that keeps n tokens of a text, at its beginning or end.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        The model's own.
    pieces : sequence of str
        The text, in the pieces that are tokenized each by itself.
    side : {"left", "right"}
        The side to cut.

    Returns
    -------
    callable
        Takes a number above 0; gives a part of the text, of as many tokens if they are
        the same where it was cut.
    """
    encoded = tokenizer(
        list(pieces),
        add_special_tokens=False,
        return_offsets_mapping=tokenizer.is_fast,
        verbose=False,
    )
    if not tokenizer.is_fast:
        ids = [token_id for found in encoded["input_ids"] for token_id in found]
        return lambda n: str(tokenizer.decode(ids[-n:] if side == "left" else ids[:n]))
    text = "".join(pieces)
    begins = accumulate((len(piece) for piece in pieces), initial=0)
    spans = [
        (begin + start, begin + end)
        for begin, found in zip(begins, encoded["offset_mapping"], strict=False)
        for start, end in found
    ]
    if side == "left":
        return lambda n: text[spans[-n:][0][0] :]
    return lambda n: text[: spans[:n][-1][1]]
