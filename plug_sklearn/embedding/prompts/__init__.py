"""Texts and conversations → token ids, and which tokens are pooled.

``_texts``
    What users pass as texts, checked: strings or conversations.
``_prompts``
    :class:`PromptReader`, which turns texts into prompts, also into those that a model
    continues.
``_templates``, ``_conversations``
    What prompt and chat templates write around a text, and between the messages of a
    conversation.
``_encoding``, with ``_special_tokens``
    Prompts → token ids, and whose words each token holds; text that spells special
    tokens, read as ordinary letters.
``_truncation``
    Cut prompts to the length limit.
``_tokens``
    Prompts as flat arrays of token ids, and which of them are pooled.
"""

from plug_sklearn.embedding.prompts._conversations import (
    ChatTemplate,
    describe_chat_template,
)
from plug_sklearn.embedding.prompts._prompts import OpenPromptReader, PromptReader
from plug_sklearn.embedding.prompts._templates import (
    FIELD,
    ChatTurn,
    describe_difference,
    render_turn,
)
from plug_sklearn.embedding.prompts._texts import (
    Conversation,
    RefusedTextError,
    Text,
    list_invisible,
    list_positions,
    list_texts,
    read_texts,
    refuse_empty_texts,
)
from plug_sklearn.embedding.prompts._tokens import (
    Ids,
    OpenPrompt,
    PromptOptions,
    TokenizedPrompts,
    TokenSelector,
)

__all__ = [
    "FIELD",
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
    "list_positions",
    "list_texts",
    "read_texts",
    "refuse_empty_texts",
    "render_turn",
]
