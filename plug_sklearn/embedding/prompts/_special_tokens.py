"""Special tokens, and texts whose spellings of them are read as ordinary letters."""

import re
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise, takewhile

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from plug_sklearn._forks import make_lock
from plug_sklearn.embedding.prompts._templates import WHITE_SPACE
from plug_sklearn.embedding.prompts._texts import RefusedTextError, Text

#: Held while a tokenizer is used: fast ones keep their settings in themselves.
TOKENIZING = make_lock()

# What a string is tokenized after, to be read as if it stood inside a text: at its
# beginning, tokenizers add a space. A letter after a letter would continue its word.
_BEFORE_WORDS = (".", "-", "\u3002", "\n", "1")
_BEFORE_OTHERS = ("a", "1", "\u3042", "\n", ".")
# Beginnings of ordinary texts: what a string is tokenized before, for tokenizers that
# read white space otherwise at the end of a prompt.
_ORDINARY = ("a", "1", ".")

#: A string that a text is tokenized after, and its tokens.
Context = tuple[str, list[int]]


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


class LiteralEncoder:
    """Encodes prompts whose template has the same tokens whatever their texts hold.

    The strings of the template are tokenized once, each by itself; ``fixed_ids`` are
    their token ids. A text is tokenized as it would be after the string before it, cut
    where it spells a special token.

    ``fixed`` are the n + 1 strings before, between and after the n texts of each
    prompt. Special tokens that they spell stay special. With ``adds_special``, the
    tokenizer's own tokens go around the prompt, where the strings do not spell them.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        special: SpecialTokens,
        fixed: Sequence[str],
        adds_special: bool,
    ) -> None:
        self.tokenizer = tokenizer
        self.special = special
        self._blank = self._find_blank()
        *before_texts, last = fixed
        self._cores = [self._leave_spaces(string) for string in before_texts]
        self._spaces = [
            string[len(core) :]
            for string, core in zip(before_texts, self._cores, strict=True)
        ]
        self._cores.append(last)
        self._contexts = [
            self._make_context(field) for field in range(len(before_texts))
        ]
        self.fixed_ids = self._encode_fixed()
        if adds_special:
            self.fixed_ids[0] = special.add_before(self.fixed_ids[0])
            self.fixed_ids[-1] = special.add_after(self.fixed_ids[-1])

    def encode(
        self, contents: Sequence[Sequence[str]], texts: Sequence[Text]
    ) -> list[list[list[int]]]:
        """Return the token ids of the text in each field of each prompt.

        ``texts`` are the rows of X that the ``contents`` of the fields come from.
        Raises a RefusedTextError if a character of a text is a special token by itself.
        """
        if not self._spaces:
            return [[] for _ in texts]
        encoded = []
        for field in range(len(self._spaces)):
            runs = [self._strip(field, in_fields[field]) for in_fields in contents]
            encoded.append(self._encode_runs(field, runs, texts))
        return [list(in_fields) for in_fields in zip(*encoded, strict=True)]

    def cut_spellings(self, text: str) -> list[str]:
        """Cut a text into pieces none of which holds a special token.

        Raises a RefusedTextError if a character of the text is a special token by
        itself.
        """
        return self._cut_and_encode(text, ("", []), text)[0]

    def _find_blank(self) -> str:
        """List the white space that the tokenizer reads as a space."""
        space, *others = self._encode([f"a{space}b" for space in WHITE_SPACE])
        pairs = zip(WHITE_SPACE[1:], others, strict=True)
        return " " + "".join(character for character, ids in pairs if ids == space)

    def _leave_spaces(self, string: str) -> str:
        """Leave the spaces before a text to it: most tokenizers join them to a word.

        They stay where they share a token with what is before them.
        """
        core = string.rstrip(self._blank)
        ids = self._encode_before_text("", core, string[len(core) :])
        return string if ids is None else core

    def _make_context(self, field: int) -> Context | None:
        """Find what a field's text is tokenized after; None for the text before it."""
        context = self.special.find_context(self._cores[field])
        if field and not context:
            return None
        ids = self._encode_before_text("", context, self._spaces[field])
        return context, self._encode([context])[0] if ids is None else ids

    def _encode_fixed(self) -> list[list[int]]:
        first, *others = self._cores
        fixed_ids = [self._encode([first])[0], *self._encode_inside(others)]
        for field, spaces in enumerate(self._spaces):
            anchor = _choose_anchors(self._cores[field])[0] if field else ""
            ids = self._encode_before_text(anchor, self._cores[field], spaces)
            fixed_ids[field] = fixed_ids[field] if ids is None else ids
        return fixed_ids

    def _strip(self, field: int, text: str) -> str:
        """Return a field's text as special tokens beside it leave it."""
        run = self._spaces[field] + text
        if self.special.strips_right_of(self._cores[field]):
            run = run.lstrip()
        if self.special.strips_left_of(self._cores[field + 1]):
            run = run.rstrip()
        return run

    def _encode_runs(
        self, field: int, runs: Sequence[str], texts: Sequence[Text]
    ) -> list[list[int]]:
        """Tokenize what is in one field of each text, after the string before it."""
        context = self._contexts[field]
        encoded: Sequence[list[int] | None] = [None] * len(runs)
        if context is not None:
            encoded = self._encode_after(context, runs)
        return [
            self._cut_and_encode(run, context, text)[1] if ids is None else ids
            for run, ids, text in zip(runs, encoded, texts, strict=True)
        ]

    def _cut_and_encode(
        self, run: str, context: Context | None, text: Text
    ) -> tuple[list[str], list[int]]:
        # A spelling cut after its first character is not found as a token.
        cuts = [match.start() + 1 for match in self.special.spelling.finditer(run)]
        pieces = [run[start:end] for start, end in pairwise([0, *cuts, len(run)])]
        ids = self._encode_pieces(pieces, context)
        if self.special.count(ids):
            # Spellings that overlap, or that the tokenizer normalizes to one.
            pieces = list(run)
            ids = self._encode_pieces(pieces, context)
        if self.special.count(ids):
            raise RefusedTextError(
                text,
                "X given to HFEmbeddingTransformer(special_tokens='literal') holds a "
                f"character that is a special token of this model, in {text!r}",
            )
        return pieces, ids

    def _encode_pieces(
        self, pieces: Sequence[str], context: Context | None
    ) -> list[int]:
        """Tokenize pieces of a text, each by itself: the first one after a context."""
        ids: list[int] = []
        if context is not None:
            (first,) = self._encode_after(context, pieces[:1])
            if first is not None:
                ids, pieces = first, pieces[1:]
        # Of the many pieces of a hostile text, few differ.
        distinct = list(dict.fromkeys(pieces))
        inside = dict(zip(distinct, self._encode_inside(distinct), strict=True))
        return [*ids, *(token_id for piece in pieces for token_id in inside[piece])]

    def _encode_inside(self, strings: Sequence[str]) -> list[list[int]]:
        """Tokenize distinct strings as if each began inside a text."""
        found: dict[str, list[int]] = {"": []}
        for anchors in (_BEFORE_WORDS, _BEFORE_OTHERS):
            left = [s for s in strings if s and _choose_anchors(s) is anchors]
            for anchor in anchors:
                if not left:
                    break
                context = (anchor, self._encode([anchor])[0])
                encoded = self._encode_after(context, left, may_spell=True)
                pairs = zip(left, encoded, strict=True)
                found |= {string: ids for string, ids in pairs if ids is not None}
                left = [string for string in left if string not in found]
            found |= dict(zip(left, self._encode(left), strict=True))
        return [found[string] for string in strings]

    def _encode_after(
        self, context: Context, strings: Sequence[str], *, may_spell: bool = False
    ) -> list[list[int] | None]:
        """Tokenize strings after a context.

        None for those whose tokens cannot be told from its tokens, and, unless they may
        spell special tokens, for those that do.
        """
        before, ids_before = context
        n_before = len(ids_before)
        found: list[list[int] | None] = []
        for ids in self._encode([before + string for string in strings]):
            fits = ids[:n_before] == ids_before
            fits = fits and (may_spell or not self.special.count(ids[n_before:]))
            found.append(ids[n_before:] if fits else None)
        return found

    def _encode_before_text(
        self, anchor: str, string: str, spaces: str
    ) -> list[int] | None:
        """Tokenize a string between an anchor and spaces and an ordinary text.

        None if it shares a token with one of them.
        """
        before, alone, *filled = self._encode(
            [
                anchor,
                anchor + string,
                *(f"{anchor}{string}{spaces}{text}" for text in _ORDINARY),
            ]
        )
        together = zip(*filled, strict=False)
        common = [ids[0] for ids in takewhile(lambda ids: len(set(ids)) == 1, together)]
        # The spaces may be tokens of their own, the same before every text.
        expected = self._decode(alone)
        while common and self._decode(common) != expected:
            common.pop()
        n_before = len(before)
        is_whole = self._decode(common) == expected and common[:n_before] == before
        return common[n_before:] if is_whole else None

    def _decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    def _encode(self, strings: Sequence[str]) -> list[list[int]]:
        if not strings:
            return []
        encoded: list[list[int]] = self.tokenizer(
            list(strings), add_special_tokens=False, verbose=False
        )["input_ids"]
        return encoded


def _choose_anchors(string: str) -> tuple[str, ...]:
    return _BEFORE_WORDS if string[:1].isalnum() else _BEFORE_OTHERS
