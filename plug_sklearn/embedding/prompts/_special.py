"""A tokenizer's special tokens, and text that spells them without meaning them."""

import re
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase


class SpecialTokens:
    """The tokens of a tokenizer that stand for something other than their text.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        The model's own.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder
        named = dict(
            zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
        )
        # Added tokens that are not special, such as <think>, steer models as well.
        self.id_of = named | {token.content: i for i, token in added.items()}
        special = {i for i, token in added.items() if token.special}
        self.ids: NDArray[np.int64] = np.array(
            sorted(special | set(named.values())), dtype=np.int64
        )
        # An unknown character is no order to the model, whoever writes it.
        steering = set(self.id_of.values()) - {tokenizer.unk_token_id}
        self.steering: NDArray[np.int64] = np.array(sorted(steering), dtype=np.int64)

    @cached_property
    def _spelling(self) -> re.Pattern[str]:
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

    def count(self, ids: Sequence[int]) -> int:
        """Count the special and added tokens among token ids."""
        return int(np.isin(ids, self.steering).sum())

    def encode_literally(
        self, pieces: list[tuple[str, bool]], adds_special: bool
    ) -> list[int]:
        """Tokenize a prompt so that its text cannot spell a special token.

        Parameters
        ----------
        pieces : list of (str, bool)
            The prompt in pieces, each with whether it is the text's own. The other
            pieces are the template's, whose special tokens stay special.
        adds_special : bool
            Whether the tokenizer's own tokens go around the prompt.

        Returns
        -------
        list of int
            Token ids.

        Raises
        ------
        ValueError
            If a character of the text is a special token by itself.
        """
        ids: list[int] = []
        run = ""  # what lies between two special tokens is tokenized in one go
        for piece, is_text in pieces:
            parts = [piece] if is_text else self._spelling.split(piece)
            for part in parts:
                if not is_text and part in self.id_of:
                    ids += [*self._encode_plainly(run), self.id_of[part]]
                    run = ""
                else:
                    run += part
        ids += self._encode_plainly(run)
        before, after = self.added if adds_special else ([], [])
        return [*before, *ids, *after]

    def cut_spellings(self, run: str) -> list[str]:
        """Cut a text into pieces none of which holds a special token.

        Raises
        ------
        ValueError
            If a character of the text is a special token by itself.
        """
        return self._cut_and_encode(run)[0]

    def _encode_plainly(self, run: str) -> list[int]:
        return self._cut_and_encode(run)[1]

    def _cut_and_encode(self, run: str) -> tuple[list[str], list[int]]:
        # A spelling cut after its first character is not found as a token.
        cuts = [match.start() + 1 for match in self._spelling.finditer(run)]
        pieces = [run[start:end] for start, end in pairwise([0, *cuts, len(run)])]
        ids = self._encode_pieces(pieces)
        if self.count(ids):
            # Spellings that overlap, or that the tokenizer normalizes to one.
            pieces = list(run)
            ids = self._encode_pieces(pieces)
        if self.count(ids):
            raise ValueError(
                "X given to HFEmbeddingTransformer(special_tokens='literal') holds a "
                f"character that is a special token of this model, in {run!r}."
            )
        return pieces, ids

    def _encode_pieces(self, pieces: Sequence[str]) -> list[int]:
        # Of the many pieces of a hostile text, few differ.
        distinct = [piece for piece in dict.fromkeys(pieces) if piece]
        if not distinct:
            return []
        encoded = self.tokenizer(distinct, add_special_tokens=False, verbose=False)
        ids = dict(zip(distinct, encoded["input_ids"], strict=True))
        return [token_id for piece in pieces if piece for token_id in ids[piece]]
