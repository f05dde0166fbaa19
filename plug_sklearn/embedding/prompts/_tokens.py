"""The options of prompts, their token ids, and which of these are pooled."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plug_sklearn.embedding.prompts._special_tokens import SpecialTokens
from plug_sklearn.embedding.prompts._texts import Conversation, Text

#: One text's token ids, or positions in them.
Ids = NDArray[np.int32]


@dataclass(frozen=True)
class PromptOptions:
    """What a prompt is made of; as in :class:`~plug_sklearn.HFEmbeddingTransformer`."""

    prompt_template: str | None = None
    chat_template: bool = False
    generation_prompt: bool = False
    special_tokens: str = "parse"
    pool_over: str = "auto"
    roles: tuple[str, ...] | None = None
    token_filter: str | None = None
    eos_token: str | None = None
    max_length: int | None = None
    truncation_side: str = "left"

    def pools_contents(self, text: Text) -> bool:
        """Return whether only what users wrote is pooled of a text."""
        if self.roles is not None:
            return True
        if self.pool_over != "auto":
            return self.pool_over == "text"
        # The opening of the answer is there to be read.
        has_template = self.chat_template or self.prompt_template is not None
        in_template = has_template or isinstance(text, Conversation)
        return in_template and not self.generation_prompt


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


@dataclass(frozen=True)
class OpenPrompt:
    """A prompt that the model continues.

    ``ids`` (n_tokens,) are its token ids. ``own`` (n_tokens,) marks the tokens that may
    be pooled, before the filters. ``owns_answer`` says whether those of the answer may
    be.
    """

    ids: Ids
    own: NDArray[np.bool_]
    owns_answer: bool


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
        self, ids: Sequence[Ids], own: Sequence[NDArray[np.bool_]]
    ) -> tuple[TokenizedPrompts, int]:
        """Join prompts, and choose the tokens to pool.

        ``own`` says which tokens may be pooled, at least one of each prompt. If the
        filter leaves no token of a prompt, all that may be pooled are. Returns the
        prompts, and how many these are.
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


def _holds_text(token: str) -> bool:
    # A byte of a longer character decodes to U+FFFD: it is part of some letter.
    return any(
        unicodedata.category(character)[0] in "LNM" or character == "\ufffd"
        for character in token
    )
