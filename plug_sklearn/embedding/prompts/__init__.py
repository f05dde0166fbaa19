"""Texts and conversations → token ids, and which tokens are pooled.

``_texts``, ``_conversations``
    What users pass as texts, checked; conversations, rendered by a chat template.
``_prompts``
    :class:`PromptReader`, which turns texts into prompts.
``_open_prompts``
    Prompts that the model goes on with.
``_templates``
    What prompt and chat templates write around a text.
``_encoding``, with ``_literal`` and ``_special_tokens``
    Texts → token ids; text that spells special tokens, read as ordinary letters.
``_tokens``
    Prompts as flat arrays of token ids: which are pooled, and which stay when a prompt
    is cut.
``_notices``
    Errors and warnings about texts.
"""

from plug_sklearn.embedding.prompts._conversations import (
    ChatTemplate,
    Conversation,
    Text,
    describe_chat_template,
    list_invisible,
)
from plug_sklearn.embedding.prompts._notices import (
    MOST_LISTED,
    RefusedTextError,
    refuse_empty_texts,
)
from plug_sklearn.embedding.prompts._open_prompts import OpenPrompt, OpenPromptReader
from plug_sklearn.embedding.prompts._prompts import PromptOptions, PromptReader
from plug_sklearn.embedding.prompts._templates import (
    SLOT,
    ChatTurn,
    describe_difference,
    render_turn,
)
from plug_sklearn.embedding.prompts._texts import list_texts, read_texts
from plug_sklearn.embedding.prompts._tokens import Ids, TokenizedPrompts, TokenSelector

__all__ = [
    "MOST_LISTED",
    "SLOT",
    "ChatTemplate",
    "ChatTurn",
    "Conversation",
    "Ids",
    "OpenPrompt",
    "OpenPromptReader",
    "PromptOptions",
    "PromptReader",
    "RefusedTextError",
    "Text",
    "TokenSelector",
    "TokenizedPrompts",
    "describe_chat_template",
    "describe_difference",
    "list_invisible",
    "list_texts",
    "read_texts",
    "refuse_empty_texts",
    "render_turn",
]
