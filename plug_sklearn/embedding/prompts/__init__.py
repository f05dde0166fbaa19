"""Texts → token ids, and the positions to pool.

``_texts``
    The containers of texts that users pass.
``_prompts``, with ``_frames``, ``_special`` and ``_cutting``
    Texts → prompts; what stands around a text; special tokens, and text that spells
    them; texts that are too long.
``_notices``
    What was done to texts, told once.
``_tokenized``
    Prompts as flat arrays of token ids.
"""
