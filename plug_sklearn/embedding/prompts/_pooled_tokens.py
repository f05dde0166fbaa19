"""Decide which tokens of a prompt are pooled."""

import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from plug_sklearn.embedding.prompts._special_tokens import SpecialTokens
from plug_sklearn.embedding.prompts._tokenized import Ids, TokenizedPrompts

#: Owner of the tokens that templates and the tokenizer write.
TEMPLATE = -1


class TokenSelector:
    """Selects the tokens of prompts that pooling takes in.

    Parameters
    ----------
    special : SpecialTokens
        Of the model's tokenizer.
    token_filter, eos_token : str or None
        As in :class:`~plug_sklearn.HFEmbeddingTransformer`.
    also_special : sequence of int
        Token ids that count as special besides.

    Raises
    ------
    ValueError
        If ``eos_token`` is not the text of one token.
    """

    def __init__(
        self,
        special: SpecialTokens,
        token_filter: str | None,
        eos_token: str | None,
        also_special: Sequence[int],
    ) -> None:
        self.special = special
        self.special_ids = np.array([*special.ids, *also_special], dtype=np.int64)
        self.token_filter = token_filter
        self.eos_id = self._find_eos_id(eos_token)

    def select(
        self, ids: Sequence[Ids], own: Sequence[NDArray[np.bool_]] | None
    ) -> tuple[TokenizedPrompts, int]:
        """Join prompts, and choose the tokens to pool.

        Parameters
        ----------
        ids : sequence of ndarray of int32
            Token ids of each prompt.
        own : sequence of ndarray of bool or None
            Which tokens may be pooled; at least one of each prompt. None is all.

        Returns
        -------
        prompts : TokenizedPrompts
            Where the filter leaves no token of a prompt, all that may be are pooled.
        n_emptied : int
            How many prompts these are.
        """
        prompts = TokenizedPrompts.join(ids, own)
        left_out, blank = self.classify_vocabulary(prompts.ids)
        kept = prompts.kept & ~left_out[prompts.ids]
        if self.eos_id is not None:
            for found, start in zip(ids, prompts.starts, strict=False):
                kept[start + self._find_end(found, blank) : start + len(found)] = False
        is_empty = ~np.logical_or.reduceat(kept, prompts.starts[:-1])
        if is_empty.any():
            kept |= np.repeat(is_empty, prompts.lengths) & prompts.kept
        chosen = TokenizedPrompts(prompts.ids, kept, prompts.starts)
        return chosen, int(is_empty.sum())

    def classify_vocabulary(
        self, ids: Ids
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Say of each token id in use whether the filter drops it, and if it is blank.

        Each distinct id is decoded once: far fewer than there are tokens.
        """
        used = np.unique(ids)
        left_out = np.zeros(used[-1] + 1, dtype=bool)
        blank = np.zeros(used[-1] + 1, dtype=bool)
        if self.token_filter is not None:
            left_out[np.intersect1d(used, self.special_ids)] = True
        if self.eos_id is not None:
            blank[used] = [
                not token.strip() for token in self.special.decode_each(used)
            ]
        if self.token_filter == "non_text":
            left_out[used] |= [
                not _holds_text(token) for token in self.special.decode_each(used)
            ]
        return left_out, blank

    def _find_end(self, ids: Ids, blank: NDArray[np.bool_]) -> int:
        """Find where the trailing run of end-of-text tokens begins.

        Blank tokens between and after them belong to the run: chat templates end a
        turn with its marker and a line break.
        """
        end = len(ids)
        while True:
            last = end
            while last and blank[ids[last - 1]]:
                last -= 1
            if not last or ids[last - 1] != self.eos_id:
                return end
            end = last - 1

    def _find_eos_id(self, eos_token: str | None) -> int | None:
        if eos_token is None:
            return None
        token_id = self.special.tokenizer.get_vocab().get(eos_token)
        if token_id is None:
            raise ValueError(
                "The 'eos_token' parameter of HFEmbeddingTransformer must be the text "
                "of one token in the model's vocabulary, such as "
                f"{self.special.tokenizer.eos_token!r}. Got {eos_token!r} instead."
            )
        return int(token_id)


def find_owners(
    offsets: NDArray[np.int64],
    is_added: NDArray[np.bool_],
    spans: Sequence[tuple[int, int]],
    owners: Sequence[int],
) -> NDArray[np.int32]:
    """Find whose words each token of a prompt holds.

    A token that holds a template's words and a user's is the user's.

    Parameters
    ----------
    offsets : ndarray of shape (n_tokens, 2), int64
        First and end position of each token in the prompt, in characters.
    is_added : ndarray of shape (n_tokens,), bool
        Whether the tokenizer added the token to the prompt.
    spans : sequence of (int, int)
        First and end position of each content, in ascending order.
    owners : sequence of int
        The message that each content belongs to.

    Returns
    -------
    ndarray of shape (n_tokens,), int32
        The owner of each token; ``TEMPLATE`` for the rest.
    """
    chosen = [number for number, (start, end) in enumerate(spans) if start < end]
    if not chosen or len(offsets) == 0:
        return np.full(len(offsets), TEMPLATE, dtype=np.int32)
    starts, ends = np.array([spans[number] for number in chosen]).T
    messages = np.array([owners[number] for number in chosen])
    begins, stops = offsets.T
    # Tokenizers give white space that they trim no width: it is where the token before
    # it ends.
    previous = np.maximum.accumulate(np.where(is_added, 0, stops))
    is_point = begins == stops
    begins = np.where(is_point, np.concatenate([[0], previous[:-1]]), begins)
    stops = np.where(is_point, begins + 1, stops)
    # The first content that ends behind the token's beginning.
    number = np.minimum(np.searchsorted(ends, begins, side="right"), len(ends) - 1)
    inside = (begins < ends[number]) & (stops > starts[number]) & ~is_added
    return np.where(inside, messages[number], TEMPLATE).astype(np.int32)


def _holds_text(token: str) -> bool:
    # A byte of a longer character decodes to U+FFFD: it is part of some letter.
    return any(
        unicodedata.category(character)[0] in "LNM" or character == "\ufffd"
        for character in token
    )
