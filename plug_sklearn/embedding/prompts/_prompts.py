"""Turn texts into prompts: token ids, and which of them are pooled."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from plug_sklearn.embedding.prompts._conversations import (
    ChatTemplate,
    Conversation,
    ConversationRenderer,
    Text,
    describe_chat_template,
)
from plug_sklearn.embedding.prompts._encoding import Owners, Places, PromptEncoder
from plug_sklearn.embedding.prompts._notices import Notices, RefusedTextError
from plug_sklearn.embedding.prompts._special_tokens import TOKENIZING, SpecialTokens
from plug_sklearn.embedding.prompts._templates import (
    SLOT,
    ChatTurn,
    PromptTemplate,
    render_turn,
)
from plug_sklearn.embedding.prompts._tokens import (
    TEMPLATE,
    Ids,
    TokenizedPrompts,
    TokenSelector,
    keep_tokens,
    make_cutter,
)

#: Texts tokenized in one call: a fast tokenizer keeps kilobytes for each.
CHUNK = 1024
#: The role of a text that is a string.
_STRING_ROLE = "user"


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


def pools_contents(options: PromptOptions, text: Text) -> bool:
    """Return whether only what users wrote is pooled of a text."""
    if options.roles is not None:
        return True
    if options.pool_over != "auto":
        return options.pool_over == "text"
    # The opening of the answer is there to be read.
    has_template = options.chat_template or options.prompt_template is not None
    in_template = has_template or isinstance(text, Conversation)
    return in_template and not options.generation_prompt


class PromptReader:
    """Turns texts into prompts with one tokenizer and one set of options.

    ``model_limit`` is the longest prompt that the model takes, in tokens; None: no
    limit. ``start_id`` is the token that a decoder stack reads before the text.
    ``turn`` is what the chat template writes around a message, and ``chat`` renders
    conversations; if they are None, the tokenizer's own template does so, as of now.
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
        self.start = [] if start_id is None else [start_id]
        self.limit = self._decide_limit(model_limit)
        if options.chat_template:
            opens = options.generation_prompt
            turn = turn or render_turn(tokenizer, generation_prompt=opens)
        else:
            turn = ChatTurn()
        self.template = PromptTemplate(options.prompt_template or SLOT, turn)
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
        self.selector = TokenSelector(
            self.special, options.token_filter, options.eos_token, self.start
        )
        self.notices = Notices()

    def pools_contents(self, text: Text) -> bool:
        """Return whether only what users wrote is pooled of a text."""
        return pools_contents(self.options, text)

    def _encode(self, texts: Sequence[Text]) -> tuple[list[Ids], list[Owners]]:
        needs_owners = any(map(self.pools_contents, texts))
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
        notices = self.notices
        notices.n_read += len(texts)
        ids, own = self._read_own(texts, notices)
        for text, may_pool in zip(texts, own, strict=True):
            if not may_pool.any():
                raise self._refuse_empty(text)
        prompts, n_emptied = self.selector.select(ids, own)
        notices.n_emptied += n_emptied
        return prompts

    def _read_own(
        self, texts: Sequence[Text], notices: Notices
    ) -> tuple[list[Ids], list[NDArray[np.bool_]]]:
        """Tokenize texts, cut to the limit, and find the tokens that may be pooled."""
        ids: list[Ids] = []
        owners: list[Owners] = []
        with TOKENIZING:
            for start in range(0, len(texts), CHUNK):
                chunk = texts[start : start + CHUNK]
                found = self._encode(chunk)
                ids += found[0]
                owners += found[1]
            notices.dropped += self._list_dropped(texts, owners)
            self._cut_long(texts, ids, owners, notices)
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
        self.notices.tell(
            X,
            limit=self.limit,
            side=self.options.truncation_side,
            roles=self.options.roles,
            token_filter=self.options.token_filter,
            eos_token=self.options.eos_token,
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
            if self.pools_contents(text)
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
            if isinstance(text, Conversation) and self.pools_contents(text):
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
        self,
        texts: Sequence[Text],
        ids: list[Ids],
        owners: list[Owners],
        notices: Notices,
    ) -> None:
        """Cut prompts to the limit: what users wrote, not what templates write."""
        if self.limit is None:
            return
        for row, text in enumerate(texts):
            if len(ids[row]) <= self.limit:
                continue
            notices.n_cut += 1
            if isinstance(text, str):
                _, ids[row], owners[row] = self._cut_string(text)
            else:
                ids[row], owners[row], is_whole = self._cut_conversation(text)
                notices.n_roles_cut += not is_whole

    def locate(self, text: str) -> Places:
        """Find where in a text its tokens stand, in characters: (n_tokens, 2).

        Those of a template have -1. The tokens are all that ``read`` gives, pooled or
        not.
        """
        with TOKENIZING:
            (ids,), _ = self._encode([text])
            if self.limit is None or len(ids) <= self.limit:
                return self.encoder.locate(text)
            kept, _, _ = self._cut_string(text)
            places = self.encoder.locate(kept)
        if self.options.truncation_side == "left":
            places[places >= 0] += len(text) - len(kept)
        return places

    def _cut_string(self, text: str) -> tuple[str, Ids, Owners]:
        """Cut a text; gives what stays of it, its tokens and whose they are."""
        limit, side = self.limit or 0, self.options.truncation_side
        n_template = self.encoder.count_template_tokens()
        room = (limit - n_template) // self.template.n_slots
        pieces = self.encoder.cut_spellings(text)
        keep = make_cutter(self.tokenizer, pieces, side)
        # Tokens merge otherwise where a text was cut: a few may be too many still.
        while room > 0:
            kept = keep(room)
            (ids,), (owners,) = self._encode([kept])
            if len(ids) > limit:
                room -= max(1, len(ids) - limit)
                continue
            # A text that spells the tokenizer's own special tokens gets no second ones.
            more = (limit - len(ids)) // self.template.n_slots
            if more > 0:
                longer = keep(room + more)
                (its_ids,), (its_owners,) = self._encode([longer])
                if len(ids) < len(its_ids) <= limit:
                    return longer, its_ids, its_owners
            return kept, ids, owners
        raise self._refuse_limit(n_template)

    def _cut_conversation(self, conversation: Conversation) -> tuple[Ids, Owners, bool]:
        """Cut a conversation, and say whether all that may be pooled was kept."""
        limit, side = self.limit or 0, self.options.truncation_side
        try:
            (ids,), (owners,) = self.encoder.encode([conversation], needs_owners=True)
        except RefusedTextError as error:
            # It was encoded before without a need to tell its messages apart.
            raise RefusedTextError(
                conversation,
                "X given to HFEmbeddingTransformer must hold conversations that fit "
                f"into {limit} tokens where the model's chat template does not write "
                "each message once: what to cut could not be told from the template's "
                f"own words. Got {conversation!r}",
            ) from error
        wanted = np.isin(owners, self._list_messages(conversation))
        kept = keep_tokens(owners, wanted, limit, side)
        if not kept[wanted].any():
            raise self._refuse_limit(int((owners == TEMPLATE).sum()))
        return ids[kept], owners[kept], bool(kept[wanted].all())

    def _refuse_limit(self, n_template: int) -> ValueError:
        return ValueError(
            "The 'max_length' parameter of HFEmbeddingTransformer must leave room for "
            f"text: the template around it takes {n_template} tokens. Got a limit of "
            f"{self.limit} instead."
        )

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
