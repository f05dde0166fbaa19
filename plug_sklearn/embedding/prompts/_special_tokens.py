"""The special tokens of a tokenizer, and where a string contains them."""

import re
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from plug_sklearn._forks import make_lock

#: Held while a tokenizer is used: fast ones keep their settings in themselves.
TOKENIZING = make_lock()


class SpecialTokens:
    """The tokens of a tokenizer that stand for something other than their text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder
        named = dict(
            zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
        )
        # Added tokens that are not special, such as <think>, steer models as well.
        self.id_of = named | {token.content: i for i, token in added.items()}
        self._left_stripping = [t.content for t in added.values() if t.lstrip]
        self._right_stripping = [t.content for t in added.values() if t.rstrip]
        special = {i for i, token in added.items() if token.special}
        self.ids: NDArray[np.int64] = np.array(
            sorted(special | set(named.values())), dtype=np.int64
        )
        # An unknown character is no order to the model, whoever writes it.
        steering = set(self.id_of.values()) - {tokenizer.unk_token_id}
        self.steering: NDArray[np.int64] = np.array(sorted(steering), dtype=np.int64)

    @cached_property
    def spelling(self) -> re.Pattern[str]:
        """What finds each spelling of a special or added token in a string."""
        # The longest first, where one token's spelling begins another's. Some
        # tokenizers lower the case before they look.
        spellings = sorted(self.id_of, key=len, reverse=True)
        pattern = "|".join(re.escape(spelling) for spelling in spellings)
        return re.compile(f"({pattern})" if pattern else r"(?!)()", re.IGNORECASE)

    @cached_property
    def added(self) -> tuple[list[int], list[int]]:
        """The ids that the tokenizer puts before and after every text."""
        encoded = self.tokenizer("a", return_special_tokens_mask=True)
        ids, mask = encoded["input_ids"], encoded["special_tokens_mask"]
        n_before = mask.index(0)
        n_after = mask[::-1].index(0)
        return ids[:n_before], ids[len(ids) - n_after :]

    def add_before(self, ids: list[int]) -> list[int]:
        """Put the tokenizer's tokens before ids that do not begin with them."""
        before = self.added[0]
        return ids if ids[: len(before)] == before else [*before, *ids]

    def add_after(self, ids: list[int]) -> list[int]:
        """Put the tokenizer's tokens after ids that do not end with them."""
        after = self.added[1]
        return ids if ids[len(ids) - len(after) :] == after else [*ids, *after]

    def find_own(self, ids: list[int]) -> slice:
        """Find the ids of a prompt without special tokens that would be there twice.

        The tokenizer adds its own to each prompt. A ready-made prompt that begins with
        the beginning-of-text token needs no second one, nor does one that ends with the
        end-of-text token.
        """
        before, after = self.added
        prompt = ids[len(before) : len(ids) - len(after)]
        begins = bool(before) and prompt[: len(before)] == before
        # One token is not both ends of a prompt.
        rest = prompt[len(before) :] if begins else prompt
        ends = bool(after) and rest[len(rest) - len(after) :] == after
        return slice(len(before) * begins, len(ids) - len(after) * ends)

    def decode_each(self, ids: NDArray[np.int32]) -> list[str]:
        """Return the text of each token."""
        with TOKENIZING:
            tokens: list[str] = self.tokenizer.batch_decode(
                [[token_id] for token_id in ids.tolist()],
                clean_up_tokenization_spaces=False,
            )
        return tokens

    def count(self, ids: Sequence[int]) -> int:
        """Count the special and added tokens among token ids."""
        return int(np.isin(ids, self.steering).sum())

    def strips_right_of(self, fixed: str) -> bool:
        """Return whether a string ends in a token that strips what is after it."""
        before = fixed.rstrip()
        return any(before.endswith(spelling) for spelling in self._right_stripping)

    def strips_left_of(self, fixed: str) -> bool:
        """Return whether a string begins with a token that strips what is before it."""
        after = fixed.lstrip()
        return any(after.startswith(spelling) for spelling in self._left_stripping)

    def find_context(self, fixed: str) -> str:
        """Return the end of a string from its last special token on, or all of it."""
        matches = list(self.spelling.finditer(fixed))
        return fixed[matches[-1].start() :] if matches else fixed
