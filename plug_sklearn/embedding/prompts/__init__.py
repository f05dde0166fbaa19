"""Texts → token ids, and the positions to pool.

``_texts``
    The containers of texts that users pass.
``_prompts``, with ``_turns``, ``_frames``, ``_special``, ``_literal`` and ``_cutting``
    Texts → prompts: what a chat template writes around a message; what stands around a
    text; special tokens; text that spells them and does not mean them; texts that are
    too long.
``_earlier``
    Whether prompts are what earlier releases made of the same texts.
``_notices``, ``_refusals``
    What was done to texts, told once; texts that cannot be read.
``_open_prompts``
    Prompts that the model goes on with.
``_tokenized``
    Prompts as flat arrays of token ids.
"""

from plug_sklearn.embedding.prompts._conversations import Text
from plug_sklearn.embedding.prompts._errors import RefusedTextError
from plug_sklearn.embedding.prompts._open_prompts import OpenPrompt, OpenPromptReader
from plug_sklearn.embedding.prompts._pooled_tokens import TokenSelector
from plug_sklearn.embedding.prompts._texts import read_texts
from plug_sklearn.embedding.prompts._tokenized import TokenizedPrompts

__all__ = [
    "OpenPrompt",
    "OpenPromptReader",
    "RefusedTextError",
    "Text",
    "TokenSelector",
    "TokenizedPrompts",
    "read_texts",
]
