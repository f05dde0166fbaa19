"""Texts → token ids and the positions to pool."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from plug_sklearn._forks import make_lock
from plug_sklearn.embedding.prompts._cutting import make_cutter
from plug_sklearn.embedding.prompts._frames import SLOT, PromptFrame
from plug_sklearn.embedding.prompts._literal import LiteralEncoder
from plug_sklearn.embedding.prompts._notices import Notices
from plug_sklearn.embedding.prompts._refusals import RefusedTextError
from plug_sklearn.embedding.prompts._special import SpecialTokens
from plug_sklearn.embedding.prompts._tokenized import Ids, TokenizedPrompts
from plug_sklearn.embedding.prompts._turns import ChatTurn, render_turn

#: Texts tokenized in one call: a fast tokenizer keeps kilobytes for each.
CHUNK = 1024

# Fast tokenizers keep their settings in the tokenizer: one call at a time.
_TOKENIZING = make_lock()


@dataclass(frozen=True)
class PromptOptions:
    """What a prompt is made of; as in :class:`~plug_sklearn.HFEmbeddingTransformer`."""

    prompt_template: str | None = None
    chat_template: bool = False
    special_tokens: str = "parse"
    token_filter: str | None = None
    eos_token: str | None = None
    max_length: int | None = None
    truncation_side: str = "left"


class PromptReader:
    """Turns texts into prompts with one tokenizer and one set of options.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        The model's own.
    options : PromptOptions
        What a prompt is made of.
    model_limit : int or None
        The longest prompt that the model takes, in tokens; None where it has no limit.
    start_id : int or None
        The token that a decoder stack reads before the text.
    turn : ChatTurn, default=None
        What the chat template writes around a message; None renders it now. Only used
        with ``chat_template``.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        options: PromptOptions,
        model_limit: int | None,
        start_id: int | None = None,
        turn: ChatTurn | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.options = options
        self.start = [] if start_id is None else [start_id]
        self.limit = self._decide_limit(model_limit)
        if options.chat_template:
            turn = turn or render_turn(tokenizer)
        else:
            turn = ChatTurn()
        self.frame = PromptFrame(options.prompt_template or SLOT, turn)
        # A chat template spells the beginning-of-text token itself.
        self.adds_special = not options.chat_template
        self.special = SpecialTokens(tokenizer)
        self.literal: LiteralEncoder | None = None
        if options.special_tokens == "literal":
            with _TOKENIZING:
                self.literal = LiteralEncoder(
                    tokenizer, self.special, self.frame, self.adds_special
                )
        self.eos_id = self._find_eos_id()
        self.notices = Notices()

    def read(self, texts: Sequence[str]) -> TokenizedPrompts:
        """Tokenize texts and choose the positions to pool.

        Texts that are cut to the length limit, and those that have no token left after
        the filter and are pooled over all their tokens instead, are counted:
        ``tell_changes`` warns of them.

        Raises
        ------
        RefusedTextError
            If a text has no token at all, or a character that is a special token by
            itself where special tokens are read literally.
        ValueError
            If the limit leaves no room for text.
        """
        self.notices.n_read += len(texts)
        tokenized: list[Ids] = []
        with _TOKENIZING:
            for start in range(0, len(texts), CHUNK):
                tokenized += self._tokenize(texts[start : start + CHUNK])
            tokenized = self._cut(texts, tokenized)
        n_start = len(self.start)
        empty = [row for row, ids in enumerate(tokenized) if len(ids) == n_start]
        if empty:
            text = texts[empty[0]]
            raise RefusedTextError(
                text,
                "X given to HFEmbeddingTransformer must hold texts of at least one "
                f"token. Got {text!r} instead",
            )
        return self._choose_positions(tokenized)

    def list_empty(self, texts: Sequence[str]) -> list[str]:
        """List the texts that have no token at all."""
        with _TOKENIZING:
            tokenized = self._tokenize(texts)
        pairs = zip(texts, tokenized, strict=True)
        return [text for text, ids in pairs if len(ids) == len(self.start)]

    def tell_changes(self) -> None:
        """Warn, once for all texts read, of how many were changed."""
        self.notices.tell(
            limit=self.limit,
            side=self.options.truncation_side,
            token_filter=self.options.token_filter,
            eos_token=self.options.eos_token,
        )

    def show_tokens(self, prompts: TokenizedPrompts) -> list[list[str]]:
        """Give the text of every token that is pooled."""
        return [
            self._decode(prompts.ids_of(number)[prompts.kept_of(number)])
            for number in range(len(prompts))
        ]

    def _tokenize(self, texts: Sequence[str]) -> list[Ids]:
        if self.literal is not None:
            tokenized = self.literal.encode(texts)
        else:
            tokenized = self._tokenize_whole([self.frame.fill(text) for text in texts])
        return [np.array([*self.start, *ids], dtype=np.int32) for ids in tokenized]

    def _tokenize_whole(self, prompts: Sequence[str]) -> list[list[int]]:
        tokenized: list[list[int]] = self.tokenizer(
            list(prompts), add_special_tokens=self.adds_special, verbose=False
        )["input_ids"]
        return tokenized

    def _tokenize_frame(self) -> list[int]:
        """Tokenize what stands around every text, and the tokenizer's own tokens."""
        if self.literal is not None:
            return [token_id for ids in self.literal.fixed_ids for token_id in ids]
        return self._tokenize_whole([self.frame.fill("")])[0]

    def _cut(self, texts: Sequence[str], tokenized: list[Ids]) -> list[Ids]:
        """Cut the texts of long prompts, and leave what stands around them."""
        limit = self.limit
        long = [
            row for row, ids in enumerate(tokenized) if len(ids) > (limit or np.inf)
        ]
        if limit is None or not long:
            return tokenized
        self.notices.n_cut += len(long)
        n_frame = len(self._tokenize_frame()) + len(self.start)
        n_slots = self.frame.template.count(SLOT)
        for row in long:
            room, ids = (limit - n_frame) // n_slots, tokenized[row]
            text = texts[row]
            # What is read literally is as many tokens as its spelling.
            pieces = self.literal.cut_spellings(text) if self.literal else [text]
            keep = make_cutter(self.tokenizer, pieces, self.options.truncation_side)
            # Tokens merge otherwise where a text was cut: a few may be too many still.
            while len(ids) > limit and room > 0:
                (ids,) = self._tokenize([keep(room)])
                room -= max(1, len(ids) - limit)
            if len(ids) > limit:
                raise ValueError(
                    "The 'max_length' parameter of HFEmbeddingTransformer must leave "
                    f"room for text: what stands around it takes {n_frame} tokens. "
                    f"Got a limit of {limit} instead."
                )
            tokenized[row] = ids
        return tokenized

    def _choose_positions(self, tokenized: list[Ids]) -> TokenizedPrompts:
        prompts = TokenizedPrompts.join(tokenized)
        left_out, blank = self._classify_vocabulary(prompts.ids)
        kept = ~left_out[prompts.ids]
        if self.eos_id is not None:
            for ids, start in zip(tokenized, prompts.starts, strict=False):
                kept[start + self._find_end(ids, blank) : start + len(ids)] = False
        empty = ~np.logical_or.reduceat(kept, prompts.starts[:-1])
        if empty.any():
            kept |= np.repeat(empty, prompts.lengths)
            self.notices.n_emptied += int(empty.sum())
        return TokenizedPrompts(prompts.ids, kept, prompts.starts)

    def _classify_vocabulary(
        self, ids: Ids
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Say of each token id in use whether the filter drops it, and if it is blank.

        Decoding each distinct id once, not each token, keeps this off the clock.
        """
        used = np.unique(ids)
        left_out = np.zeros(used[-1] + 1, dtype=bool)
        blank = np.zeros(used[-1] + 1, dtype=bool)
        if self.options.token_filter is not None:
            left_out[np.intersect1d(used, [*self.special.ids, *self.start])] = True
        if self.eos_id is not None:
            blank[used] = [not token.strip() for token in self._decode(used)]
        if self.options.token_filter == "non_text":
            left_out[used] |= [not _holds_text(token) for token in self._decode(used)]
        return left_out, blank

    def _find_end(self, ids: Ids, blank: NDArray[np.bool_]) -> int:
        """Find where the trailing run of end-of-text tokens begins.

        Blank tokens between and after them belong to the run: chat templates end a
        turn with its marker and a line break.
        """
        end = len(ids)
        if self.eos_id is None:
            return end
        while True:
            last = end
            while last and blank[ids[last - 1]]:
                last -= 1
            if not last or ids[last - 1] != self.eos_id:
                return end
            end = last - 1

    def _decode(self, ids: Ids) -> list[str]:
        with _TOKENIZING:
            tokens: list[str] = self.tokenizer.batch_decode(
                [[token_id] for token_id in ids.tolist()],
                clean_up_tokenization_spaces=False,
            )
        return tokens

    def _find_eos_id(self) -> int | None:
        if self.options.eos_token is None:
            return None
        token_id = self.tokenizer.get_vocab().get(self.options.eos_token)
        if token_id is None:
            raise ValueError(
                "The 'eos_token' parameter of HFEmbeddingTransformer must be the text "
                "of one token in the model's vocabulary, such as "
                f"{self.tokenizer.eos_token!r}. Got {self.options.eos_token!r} instead."
            )
        return int(token_id)

    def _decide_limit(self, model_limit: int | None) -> int | None:
        limits = [self.tokenizer.model_max_length, model_limit]
        # Tokenizers without a limit of their own say a huge number.
        known = [limit for limit in limits if limit is not None and limit < 10**9]
        model_limit = min(known, default=None)
        chosen = self.options.max_length
        if chosen is None:
            return model_limit
        if model_limit is not None and chosen > model_limit:
            raise ValueError(
                "The 'max_length' parameter of HFEmbeddingTransformer must be at most "
                f"{model_limit} tokens, the model's own limit. Got {chosen} instead."
            )
        return chosen


def _holds_text(token: str) -> bool:
    # A byte of a longer character decodes to U+FFFD: it is part of some letter.
    return any(
        unicodedata.category(character)[0] in "LNM" or character == "\ufffd"
        for character in token
    )
