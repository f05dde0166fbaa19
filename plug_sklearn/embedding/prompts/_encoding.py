"""Tokenize texts, and find which message or template each token belongs to."""

from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from plug_sklearn.embedding.prompts._conversations import ConversationRenderer
from plug_sklearn.embedding.prompts._special_tokens import LiteralEncoder, SpecialTokens
from plug_sklearn.embedding.prompts._templates import PromptTemplate, RenderedPrompt
from plug_sklearn.embedding.prompts._texts import Conversation, Text
from plug_sklearn.embedding.prompts._tokens import Ids

#: Owner of the tokens that templates and the tokenizer write.
TEMPLATE = -1
#: Templates whose literal encoders are kept: one for each order of roles.
_MOST_ENCODERS = 64

#: The message that each token of a prompt belongs to, or ``TEMPLATE``.
Owners = NDArray[np.int32]
#: First and end position of each token in a text, (n_tokens, 2).
Places = NDArray[np.int64]


class PromptEncoder:
    """Encodes strings in a template, and conversations as a chat template writes them.

    With ``adds_special``, the tokenizer's own tokens go around strings. A chat template
    spells them itself, so that conversations get none. With ``literal``, special tokens
    that a text spells are read as their letters. ``start`` are tokens that a decoder
    reads before the prompt.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        special: SpecialTokens,
        template: PromptTemplate,
        renderer: ConversationRenderer,
        *,
        adds_special: bool,
        literal: bool,
        start: Sequence[int],
    ) -> None:
        self.tokenizer = tokenizer
        self.special = special
        self.template = template
        self.renderer = renderer
        self.adds_special = adds_special
        self.literal = literal
        self.start = list(start)
        self._around_strings = template.fixed, adds_special
        self._encoders: dict[tuple[tuple[str, ...], bool], LiteralEncoder] = {}
        if literal:
            # Its refusals come before any text is read.
            self._find_encoder(*self._around_strings)

    def encode(
        self, texts: Sequence[Text], *, needs_owners: bool
    ) -> tuple[list[Ids], list[Owners]]:
        """Tokenize texts.

        Returns arrays of shape (n_tokens,) for each prompt: its token ids; and for each
        token the number of the message that it belongs to, 0 for a plain text, or
        ``TEMPLATE``. The second are arbitrary unless ``needs_owners``.
        """
        n_texts = len(texts)
        ids: list[Ids] = [np.empty(0, dtype=np.int32)] * n_texts
        owners: list[Owners] = [np.empty(0, dtype=np.int32)] * n_texts
        strings = [row for row, text in enumerate(texts) if isinstance(text, str)]
        others = [row for row, text in enumerate(texts) if not isinstance(text, str)]
        for rows, adds_special in ((strings, self.adds_special), (others, False)):
            if rows:
                chosen = [texts[row] for row in rows]
                found = self._encode_alike(chosen, adds_special, needs_owners)
                for row, own_ids, own in zip(rows, *found, strict=True):
                    ids[row] = np.array([*self.start, *own_ids], dtype=np.int32)
                    owners[row] = np.pad(
                        own, (len(self.start), 0), constant_values=TEMPLATE
                    )
        return ids, owners

    def locate(self, text: str) -> Places:
        """Find where in a text each token of its prompt stands, in characters.

        The result (n_tokens, 2) holds first and end positions in ``text``; -1 for
        tokens that the template or the tokenizer wrote.
        """
        rendered = self._split(text, self.template.fill(text))
        leads = [text.index(content) for content in rendered.contents]
        if self.literal:
            places = self._locate_literally(text, rendered, leads)
        else:
            places = self._locate_parsed(rendered, leads)
        return np.concatenate([np.full((len(self.start), 2), TEMPLATE), places])

    def _locate_parsed(self, rendered: RenderedPrompt, leads: Sequence[int]) -> Places:
        encoded = self.tokenizer(
            rendered.text,
            add_special_tokens=self.adds_special,
            return_offsets_mapping=True,
            verbose=False,
        )
        offsets = np.array(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2)
        places = np.full_like(offsets, TEMPLATE)
        for (start, end), lead in zip(rendered.spans, leads, strict=True):
            inside = (offsets[:, 0] < end) & (offsets[:, 1] > start)
            found = offsets[inside].clip(start, end) - start + lead
            places[inside] = found
        if not self.adds_special:
            return places
        return places[self.special.find_own(encoded["input_ids"])]

    def _locate_literally(
        self, text: str, rendered: RenderedPrompt, leads: Sequence[int]
    ) -> Places:
        encoder = self._find_encoder(rendered.fixed, self.adds_special)
        (in_fields,) = encoder.encode([rendered.contents], [text])
        pieces = [np.full((len(encoder.fixed_ids[0]), 2), TEMPLATE)]
        for number, ids in enumerate(in_fields):
            # The lengths of what the first tokens decode to. Spaces of the template may
            # stand before the text.
            ends = [
                len(self.tokenizer.decode(ids[:n], clean_up_tokenization_spaces=False))
                for n in range(len(ids) + 1)
            ]
            n_spaces = ends[-1] - len(rendered.contents[number])
            found = np.array([ends[:-1], ends[1:]]).T - max(0, n_spaces)
            pieces.append(found.clip(min=0) + leads[number])
            after = len(encoder.fixed_ids[number + 1])
            pieces.append(np.full((after, 2), TEMPLATE))
        return np.concatenate(pieces)

    def count_template_tokens(self) -> int:
        """Count the tokens around every string."""
        if self.literal:
            return len(self.start) + sum(map(len, self.find_literal_ids()))
        (ids,), _ = self.encode([""], needs_owners=False)
        return len(ids)

    def find_literal_ids(self) -> list[list[int]]:
        """Return the token ids around every string that is encoded literally."""
        return self._find_encoder(*self._around_strings).fixed_ids

    def cut_spellings(self, text: str) -> list[str]:
        """Cut a string into the pieces that are tokenized each by itself."""
        if not self.literal:
            return [text]
        return self._find_encoder(*self._around_strings).cut_spellings(text)

    def _encode_alike(
        self, texts: Sequence[Text], adds_special: bool, needs_owners: bool
    ) -> tuple[list[list[int]], list[Owners]]:
        """Encode texts that are all strings, or all conversations."""
        conversations = [text for text in texts if isinstance(text, Conversation)]
        if conversations:
            prompts = self.renderer.render(conversations)
        else:
            prompts = [self.template.fill(str(text)) for text in texts]
        if self.literal or needs_owners:
            rendered = list(map(self._split, texts, prompts))
            if self.literal:
                return self._encode_literally(texts, rendered, adds_special)
            return self._parse_with_owners(rendered, adds_special)
        all_ids: list[list[int]] = self.tokenizer(
            prompts, add_special_tokens=adds_special, verbose=False
        )["input_ids"]
        if adds_special:
            all_ids = [ids[self.special.find_own(ids)] for ids in all_ids]
        return all_ids, [np.empty(0, dtype=np.int32)] * len(all_ids)

    def _split(self, text: Text, prompt: str) -> RenderedPrompt:
        if isinstance(text, Conversation):
            return self.renderer.split(text, prompt)
        rendered = self.template.split(text)
        # The ends of a template may be stripped where the text is blank.
        is_whole = self.literal or rendered.text == prompt
        return rendered if is_whole else RenderedPrompt((prompt,), (), ())

    def _parse_with_owners(
        self, rendered: Sequence[RenderedPrompt], adds_special: bool
    ) -> tuple[list[list[int]], list[Owners]]:
        """Tokenize prompts as they are; special tokens that they spell are special."""
        if not self.tokenizer.is_fast:
            raise ValueError(
                "The 'roles' parameter of HFEmbeddingTransformer must be None, and "
                "its 'pool_over' parameter 'prompt', for a tokenizer that does not "
                "report the positions of its tokens in a text, unless "
                f"special_tokens='literal'. Got a {type(self.tokenizer).__name__}."
            )
        encoded = self.tokenizer(
            [prompt.text for prompt in rendered],
            add_special_tokens=adds_special,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            verbose=False,
        )
        all_ids, all_owners = [], []
        for prompt, ids, offsets, is_added in zip(
            rendered,
            encoded["input_ids"],
            encoded["offset_mapping"],
            encoded["special_tokens_mask"],
            strict=True,
        ):
            own = self.special.find_own(ids) if adds_special else slice(None)
            owners = _find_owners(
                np.array(offsets, dtype=np.int64).reshape(-1, 2),
                np.array(is_added, dtype=bool) & adds_special,
                prompt.spans,
                prompt.owners,
            )
            all_ids.append(ids[own])
            all_owners.append(owners[own])
        return all_ids, all_owners

    def _encode_literally(
        self,
        texts: Sequence[Text],
        rendered: Sequence[RenderedPrompt],
        adds_special: bool,
    ) -> tuple[list[list[int]], list[Owners]]:
        """Tokenize prompts of which only the template's words can be special."""
        rows_of: dict[tuple[str, ...], list[int]] = {}
        for row, prompt in enumerate(rendered):
            rows_of.setdefault(prompt.fixed, []).append(row)
        ids: dict[int, list[int]] = {}
        owners: dict[int, Owners] = {}
        for fixed, rows in rows_of.items():
            encoder = self._find_encoder(fixed, adds_special)
            contents = [rendered[row].contents for row in rows]
            encoded = encoder.encode(contents, [texts[row] for row in rows])
            for row, in_fields in zip(rows, encoded, strict=True):
                # The template's strings and the contents by turns.
                pieces = zip(encoder.fixed_ids, [*in_fields, []], strict=True)
                flat = list(chain.from_iterable(pieces))
                messages = [TEMPLATE] * len(flat)
                messages[1:-1:2] = rendered[row].owners
                ids[row] = list(chain.from_iterable(flat))
                owners[row] = np.repeat(messages, [len(piece) for piece in flat])
        in_order = range(len(rendered))
        return [ids[row] for row in in_order], [owners[row] for row in in_order]

    def _find_encoder(
        self, fixed: tuple[str, ...], adds_special: bool
    ) -> LiteralEncoder:
        key = fixed, adds_special
        if key not in self._encoders:
            if len(self._encoders) >= _MOST_ENCODERS:
                self._encoders.clear()
            self._encoders[key] = LiteralEncoder(
                self.tokenizer, self.special, fixed, adds_special
            )
        return self._encoders[key]


def _find_owners(
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
