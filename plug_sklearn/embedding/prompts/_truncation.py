"""Truncate prompts that are too long."""

from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from plug_sklearn.embedding.prompts._pooled_tokens import TEMPLATE


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


def keep_tokens(
    owners: NDArray[np.int32], wanted: NDArray[np.bool_], limit: int, side: str
) -> NDArray[np.bool_]:
    """Choose the tokens of a conversation that stay when it is cut to a limit.

    The template's tokens stay. Those that are not wanted go first, and on one side.

    Parameters
    ----------
    owners : ndarray of shape (n_tokens,), int32
        The message of each token, or ``TEMPLATE``.
    wanted : ndarray of shape (n_tokens,), bool
        Whether a token may be pooled.
    limit : int
        Tokens that stay at most, if the template's are no more.
    side : {"left", "right"}
        The side to cut.

    Returns
    -------
    ndarray of shape (n_tokens,), bool
        Whether a token stays.
    """
    said = owners != TEMPLATE
    places = [np.flatnonzero(said & ~wanted), np.flatnonzero(said & wanted)]
    in_order = np.concatenate(places if side == "left" else [p[::-1] for p in places])
    kept = np.ones(len(owners), dtype=bool)
    kept[in_order[: max(0, len(owners) - limit)]] = False
    return kept
