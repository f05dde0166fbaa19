"""Token ids → pooled activations, by the shortest way that is exact.

``_reading``, with ``_exactness`` and ``_lengths``
    All prompts → all activations; which way of reading is exact for a model, and up to
    which length.
``_tries``, ``_preambles``, ``_batches``
    Prompts → token tries, long shared beginnings, and the arrays of one pass.
``_forward``, with ``_capture``
    One pass; the hooks that pool during it.
"""
