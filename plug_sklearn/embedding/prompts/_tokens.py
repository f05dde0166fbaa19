"""The token ids of prompts: which are pooled, and which stay when a prompt is cut."""

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from plug_sklearn.embedding.prompts._special_tokens import SpecialTokens

#: One text's token ids, or positions in them.
Ids = NDArray[np.int32]
#: Owner of the tokens that templates and the tokenizer write.
TEMPLATE = -1


@dataclass(frozen=True)
class TokenizedPrompts:
    """Texts as the model reads them, and the tokens that are pooled.

    ``ids`` (n_tokens,) are the token ids of all prompts, one prompt after the other.
    ``kept`` (n_tokens,) says which tokens are pooled, at least one of each prompt.
    ``starts`` (n_prompts + 1,) is where each prompt begins, and where the last one
    ends.
    """

    ids: Ids
    kept: NDArray[np.bool_]
    starts: NDArray[np.int64]

    @classmethod
    def join(
        cls, ids: Sequence[Ids], kept: Sequence[NDArray[np.bool_]] | None = None
    ) -> "TokenizedPrompts":
        """Join prompts; all tokens are kept where ``kept`` is None."""
        starts = np.cumsum([0, *(len(prompt) for prompt in ids)])
        flat = np.concatenate(ids).astype(np.int32, copy=False)
        every = np.ones(len(flat), dtype=bool)
        return cls(flat, every if kept is None else np.concatenate(kept), starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens in each prompt, shape (n_prompts,)."""
        return np.diff(self.starts)

    def ids_of(self, prompt: int) -> Ids:
        """Return one prompt's token ids."""
        return self.ids[self.starts[prompt] : self.starts[prompt + 1]]

    def kept_of(self, prompt: int) -> NDArray[np.int64]:
        """Return the positions in one prompt that are pooled, in ascending order."""
        return np.flatnonzero(self.kept[self.starts[prompt] : self.starts[prompt + 1]])

    def take(self, numbers: NDArray[np.integer], skip: int = 0) -> "TokenizedPrompts":
        """Take prompts, in the order given, without their first ``skip`` tokens."""
        spans = [
            slice(self.starts[number] + skip, self.starts[number + 1])
            for number in numbers
        ]
        return TokenizedPrompts.join(
            [self.ids[span] for span in spans], [self.kept[span] for span in spans]
        )

    def head(self, number: int, n_tokens: int) -> "TokenizedPrompts | None":
        """Take the first tokens of one prompt; None for no tokens."""
        if n_tokens == 0:
            return None
        span = slice(self.starts[number], self.starts[number] + n_tokens)
        return TokenizedPrompts.join([self.ids[span]], [self.kept[span]])


class TokenSelector:
    """Selects the tokens of prompts that pooling takes in.

    ``token_filter`` and ``eos_token`` are as in
    :class:`~plug_sklearn.HFEmbeddingTransformer`; the ids ``also_special`` count as
    special too. Raises a ValueError if ``eos_token`` is not the text of one token.
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

        ``own`` says which tokens may be pooled, at least one of each prompt; None: all.
        If the filter leaves no token of a prompt, all that may be pooled are. Returns
        the prompts, and how many these are.
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
        """Find which token ids in use the filter drops, and which are blank.

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

    ``offsets`` (n_tokens, 2) are the first and end position of each token in the
    prompt, in characters, and ``is_added`` (n_tokens,) says which tokens the tokenizer
    added. ``spans`` are those of each content, in ascending order, and ``owners`` the
    messages that the contents belong to. The result (n_tokens,) is the message of each
    token, or ``TEMPLATE``.
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


def make_cutter(
    tokenizer: PreTrainedTokenizerBase, pieces: Sequence[str], side: str
) -> Callable[[int], str]:
    """Make a function of n that keeps n tokens of a text, at its beginning or end.

    ``pieces`` are the parts of the text that are tokenized each by itself. The function
    takes a number above 0. The text that it returns has as many tokens if they are the
    same where it was cut.
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

    ``owners`` (n_tokens,) are the messages of the tokens, or ``TEMPLATE``; ``wanted``
    (n_tokens,) says which may be pooled. At most ``limit`` tokens stay, if the
    template's are no more. The result (n_tokens,) says which do.
    """
    said = owners != TEMPLATE
    places = [np.flatnonzero(said & ~wanted), np.flatnonzero(said & wanted)]
    in_order = np.concatenate(places if side == "left" else [p[::-1] for p in places])
    kept = np.ones(len(owners), dtype=bool)
    kept[in_order[: max(0, len(owners) - limit)]] = False
    return kept
