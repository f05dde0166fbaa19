"""Turn texts into prompts that the model continues, with the tokens to pool."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from plug_sklearn.embedding.prompts._conversations import ChatTemplate, Text
from plug_sklearn.embedding.prompts._prompts import (
    PromptOptions,
    PromptReader,
    pools_contents,
)
from plug_sklearn.embedding.prompts._templates import ChatTurn, render_turn
from plug_sklearn.embedding.prompts._tokens import Ids

#: The role of the answer.
_ANSWER_ROLE = "assistant"


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


class OpenPromptReader(PromptReader):
    """Turns texts into prompts that end where the model's answer begins.

    Prompts that the chat template writes end with the header of the assistant's turn.
    ``options`` decide which tokens are pooled. The answer counts as a message of the
    assistant if they name roles, and otherwise as part of the text. ``model_limit`` is
    the longest prompt that the model takes, in tokens. ``turn`` and ``chat`` are the
    chat template's output in ``fit``.
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
        self._pooled_by = options

    def pools_contents(self, text: Text) -> bool:
        """Return whether only a text's contents are pooled, without its template."""
        return pools_contents(self._pooled_by, text)

    def open(self, texts: Sequence[Text]) -> list[OpenPrompt]:
        """Tokenize texts, and tell which of their tokens are pooled.

        Raises a RefusedTextError if a text has no token, or none to pool where its
        answer has none either; or the chat template cannot express a conversation.
        """
        self.notices.n_read += len(texts)
        ids, own = self._read_own(texts, self.notices)
        roles = self._pooled_by.roles
        prompts = [
            OpenPrompt(
                found,
                may_pool,
                roles is None or _ANSWER_ROLE in roles,
            )
            for found, may_pool in zip(ids, own, strict=True)
        ]
        for text, prompt in zip(texts, prompts, strict=True):
            if len(prompt.ids) == 0 or not (prompt.own.any() or prompt.owns_answer):
                raise self._refuse_empty(text)
        return prompts


def _open_turn(tokenizer: PreTrainedTokenizerBase, turn: ChatTurn) -> ChatTurn:
    """Add the opening of the answer to a turn as it was written in ``fit``."""
    opened = render_turn(tokenizer, generation_prompt=True)
    closed = render_turn(tokenizer)
    if not opened.end.startswith(closed.end):
        return opened
    return replace(turn, end=turn.end + opened.end.removeprefix(closed.end))
