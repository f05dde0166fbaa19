"""The token ids of many prompts, in flat arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: One text's token ids, or positions in them.
Ids = NDArray[np.int32]


@dataclass(frozen=True)
class TokenizedPrompts:
    """Texts as the model reads them, and the tokens that are pooled.

    Attributes
    ----------
    ids : ndarray of shape (n_tokens,), int32
        Token ids of all prompts, one prompt after the other.
    kept : ndarray of shape (n_tokens,), bool
        Whether pooling takes the token in; at least one token of each prompt is.
    starts : ndarray of shape (n_prompts + 1,), int64
        Where each prompt begins in the two arrays, and where the last one ends.
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
        """Give one prompt's token ids."""
        return self.ids[self.starts[prompt] : self.starts[prompt + 1]]

    def kept_of(self, prompt: int) -> NDArray[np.int64]:
        """Give the positions in one prompt that are pooled, in ascending order."""
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
