"""Turn texts into prompts: token ids, and which of them are pooled."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from plug_sklearn._warnings import warn_user
from plug_sklearn.embedding.prompts._conversations import (
    ChatTemplate,
    ConversationRenderer,
    describe_chat_template,
)
from plug_sklearn.embedding.prompts._encoding import Owners, Places, PromptEncoder
from plug_sklearn.embedding.prompts._special_tokens import TOKENIZING, SpecialTokens
from plug_sklearn.embedding.prompts._templates import (
    FIELD,
    ChatTurn,
    PromptTemplate,
    render_turn,
)
from plug_sklearn.embedding.prompts._texts import (
    Conversation,
    RefusedTextError,
    Text,
    list_positions,
)
from plug_sklearn.embedding.prompts._tokens import (
    Ids,
    OpenPrompt,
    PromptOptions,
    TokenizedPrompts,
    TokenSelector,
)
from plug_sklearn.embedding.prompts._truncation import PromptCutter, decide_limit

#: Texts tokenized in one call: a fast tokenizer keeps kilobytes for each.
CHUNK = 1024
#: The role of a text that is a string.
_STRING_ROLE = "user"
#: The role of the answer.
_ANSWER_ROLE = "assistant"


@dataclass
class _Changes:
    """Counts of texts that were changed in reading.

    Of ``n_read`` texts, ``n_cut`` were longer than the limit; ``n_roles_cut`` of these
    lost tokens of the roles that are pooled. ``n_emptied`` had no token left to pool.
    ``dropped`` are conversations with messages to pool that the chat template left out.
    """

    n_read: int = 0
    n_cut: int = 0
    n_roles_cut: int = 0
    n_emptied: int = 0
    dropped: list[Text] = field(default_factory=list)


class PromptReader:
    """Turns texts into prompts with one tokenizer and one set of options.

    ``model_limit`` is the longest prompt that the model takes, in tokens; None: no
    limit. ``start_id`` is the token that a decoder reads before the text. ``turn`` is
    what the chat template writes around a message, and ``chat`` renders conversations;
    if they are None, the tokenizer's own template does so, as of now.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        options: PromptOptions,
        model_limit: int | None,
        start_id: int | None = None,
        turn: ChatTurn | None = None,
        chat: ChatTemplate | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.options = options
        # Those of a text, which a prompt that is continued shares.
        self.pooled_by = options
        self.start = [] if start_id is None else [start_id]
        self.limit = decide_limit(tokenizer, model_limit, options.max_length)
        if options.chat_template:
            opens = options.generation_prompt
            turn = turn or render_turn(tokenizer, generation_prompt=opens)
        else:
            turn = ChatTurn()
        self.template = PromptTemplate(options.prompt_template or FIELD, turn)
        self.special = SpecialTokens(tokenizer)
        self.chat = chat or describe_chat_template(tokenizer)
        with TOKENIZING:
            self.encoder = PromptEncoder(
                tokenizer,
                self.special,
                self.template,
                ConversationRenderer(
                    tokenizer, options.generation_prompt, self.chat.time
                ),
                adds_special=not options.chat_template,
                literal=options.special_tokens == "literal",
                start=self.start,
            )
        self.cutter = PromptCutter(self.encoder, self.limit, options.truncation_side)
        self.selector = TokenSelector(
            self.special, options.token_filter, options.eos_token, self.start
        )
        self._changes = _Changes()

    def _encode(self, texts: Sequence[Text]) -> tuple[list[Ids], list[Owners]]:
        needs_owners = any(map(self.pooled_by.pools_contents, texts))
        return self.encoder.encode(texts, needs_owners=needs_owners)

    def read(self, texts: Sequence[Text]) -> TokenizedPrompts:
        """Tokenize texts and choose the tokens to pool.

        Three kinds of texts are noted, and ``tell_changes`` warns of them: those that
        are cut to the length limit; those that have no token left after the filter, and
        are pooled over all their tokens instead; and conversations of which the chat
        template does not write all messages that are to be pooled.

        Raises a RefusedTextError if a text has no token to pool; a character of it is a
        special token by itself where special tokens are read literally; or the chat
        template cannot express a conversation. Raises a ValueError if the limit leaves
        no room for text.
        """
        ids, own = self._read_own(texts)
        for text, may_pool in zip(texts, own, strict=True):
            if not may_pool.any():
                raise self._refuse_empty(text)
        prompts, n_emptied = self.selector.select(ids, own)
        self._changes.n_emptied += n_emptied
        return prompts

    def _read_own(
        self, texts: Sequence[Text]
    ) -> tuple[list[Ids], list[NDArray[np.bool_]]]:
        """Tokenize texts, cut to the limit, and find the tokens that may be pooled."""
        self._changes.n_read += len(texts)
        ids: list[Ids] = []
        owners: list[Owners] = []
        with TOKENIZING:
            for start in range(0, len(texts), CHUNK):
                chunk = texts[start : start + CHUNK]
                found = self._encode(chunk)
                ids += found[0]
                owners += found[1]
            self._changes.dropped += self._list_dropped(texts, owners)
            self._cut_long(texts, ids, owners)
        return ids, self._find_own(texts, ids, owners)

    def _refuse_empty(self, text: Text) -> RefusedTextError:
        roles = self.options.roles
        what = "token" if roles is None else f"token of roles={roles!r}"
        return RefusedTextError(
            text,
            "X given to HFEmbeddingTransformer must hold texts of at least one "
            f"{what}. Got {text!r} instead",
        )

    def list_empty(self, texts: Sequence[Text]) -> list[Text]:
        """List the texts that have no token to pool."""
        with TOKENIZING:
            ids, owners = self._encode(texts)
        own = self._find_own(texts, ids, owners)
        pairs = zip(texts, own, strict=True)
        return [text for text, may_pool in pairs if not may_pool.any()]

    def tell_changes(self, X: Sequence[Text]) -> None:
        """Warn, once for all texts read of the rows of X, of what was changed."""
        options, changes, self._changes = self.options, self._changes, _Changes()
        n_read = f"{changes.n_read} distinct texts"
        of_roles = "" if options.roles is None else f" of roles={options.roles!r}"
        if changes.n_cut:
            also = of_roles and f" All text{of_roles} was kept."
            if changes.n_roles_cut:
                n_more = changes.n_roles_cut
                also = of_roles and f" In {n_more} of them, text{of_roles} was cut too."
            warn_user(
                f"{changes.n_cut} of {n_read} are longer than {self.limit} tokens and "
                f"were cut on the {options.truncation_side} side.{also}"
            )
        if changes.n_emptied:
            warn_user(
                f"{changes.n_emptied} of {n_read} have no token left after "
                f"token_filter={options.token_filter!r} and "
                f"eos_token={options.eos_token!r}; all their tokens are pooled."
            )
        if changes.dropped:
            dropped = set(changes.dropped)
            rows = [row for row, text in enumerate(X) if text in dropped]
            warn_user(
                f"The model's chat template leaves out messages{of_roles} in "
                f"{len(rows)} of {len(X)} items of X, at positions "
                f"{list_positions(rows)}. Their tokens are neither in the prompt nor "
                "pooled."
            )

    def show_tokens(self, prompts: TokenizedPrompts) -> list[list[str]]:
        """Return the text of every token that is pooled."""
        return [
            self.special.decode_each(prompts.ids_of(number)[prompts.kept_of(number)])
            for number in range(len(prompts))
        ]

    def _find_own(
        self, texts: Sequence[Text], ids: Sequence[Ids], owners: Sequence[Owners]
    ) -> list[NDArray[np.bool_]]:
        """Find the tokens of each prompt that may be pooled."""
        n_start = len(self.start)
        return [
            np.isin(own, self._list_messages(text))
            if self.pooled_by.pools_contents(text)
            # A decoder's start token alone is no text.
            else np.full(len(found), len(found) > n_start)
            for text, found, own in zip(texts, ids, owners, strict=True)
        ]

    def _list_dropped(
        self, texts: Sequence[Text], owners: Sequence[Owners]
    ) -> list[Text]:
        """List the conversations with messages to pool that are not in the prompt."""
        dropped: list[Text] = []
        for text, own in zip(texts, owners, strict=True):
            if isinstance(text, Conversation) and self.pooled_by.pools_contents(text):
                present = set(own.tolist())
                absent = [n for n in self._list_messages(text) if n not in present]
                # A blank content may well have no token.
                if absent and any(text.messages[n]["content"].strip() for n in absent):
                    dropped.append(text)
        return dropped

    def _list_messages(self, text: Text) -> list[int]:
        """List the numbers of the messages whose words may be pooled."""
        roles = self.options.roles
        spoken = (
            [_STRING_ROLE]
            if isinstance(text, str)
            else [message["role"] for message in text.messages]
        )
        return [n for n, role in enumerate(spoken) if roles is None or role in roles]

    def _cut_long(
        self, texts: Sequence[Text], ids: list[Ids], owners: list[Owners]
    ) -> None:
        """Cut prompts to the limit, and count them."""
        for row, text in enumerate(texts):
            if len(ids[row]) <= self.cutter.limit:
                continue
            self._changes.n_cut += 1
            if isinstance(text, str):
                _, ids[row], owners[row] = self.cutter.cut_string(
                    text, needs_owners=self.pooled_by.pools_contents(text)
                )
            else:
                ids[row], owners[row], is_whole = self.cutter.cut_conversation(
                    text, self._list_messages(text)
                )
                self._changes.n_roles_cut += not is_whole

    def locate(self, text: str) -> Places:
        """Find where in a text its tokens stand, in characters: (n_tokens, 2).

        Those of a template have -1. The tokens are all that ``read`` gives, pooled or
        not.
        """
        with TOKENIZING:
            (ids,), _ = self.encoder.encode([text], needs_owners=False)
            if len(ids) <= self.cutter.limit:
                return self.encoder.locate(text)
            kept, *_ = self.cutter.cut_string(text, needs_owners=False)
            places = self.encoder.locate(kept)
        if self.options.truncation_side == "left":
            places[places >= 0] += len(text) - len(kept)
        return places


class OpenPromptReader(PromptReader):
    """Turns texts into prompts that end where the model's answer begins.

    Prompts that the chat template writes end with the header of the assistant's turn.
    ``options`` decide which tokens are pooled. The answer counts as a message of the
    assistant if they name roles, and otherwise as belonging to the text.
    ``model_limit`` is the longest prompt that the model takes, in tokens. ``turn`` and
    ``chat`` are the chat template's output in ``fit``.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        options: PromptOptions,
        model_limit: int | None,
        turn: ChatTurn | None = None,
        chat: ChatTemplate | None = None,
    ) -> None:
        if options.chat_template and turn is not None and not options.generation_prompt:
            turn = _open_turn(tokenizer, turn)
        opened = replace(options, generation_prompt=True)
        super().__init__(tokenizer, opened, model_limit, None, turn, chat)
        self.pooled_by = options

    def open(self, texts: Sequence[Text]) -> list[OpenPrompt]:
        """Tokenize texts, and tell which of their tokens are pooled.

        Raises a RefusedTextError if a text has no token, or none to pool where its
        answer has none either; or the chat template cannot express a conversation.
        """
        ids, own = self._read_own(texts)
        roles = self.pooled_by.roles
        owns_answer = roles is None or _ANSWER_ROLE in roles
        pairs = zip(ids, own, strict=True)
        prompts = [OpenPrompt(*pair, owns_answer) for pair in pairs]
        for text, prompt in zip(texts, prompts, strict=True):
            if len(prompt.ids) == 0 or not (prompt.own.any() or owns_answer):
                raise self._refuse_empty(text)
        return prompts


def _open_turn(tokenizer: PreTrainedTokenizerBase, turn: ChatTurn) -> ChatTurn:
    """Add the opening of the answer to a turn as it was written in ``fit``."""
    opened = render_turn(tokenizer, generation_prompt=True)
    closed = render_turn(tokenizer)
    if not opened.end.startswith(closed.end):
        return opened
    return replace(turn, end=turn.end + opened.end.removeprefix(closed.end))
