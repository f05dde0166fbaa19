"""Token ids → pooled activations, by the shortest way that is exact.

``_reading``, with ``_exactness``
    All prompts → all activations; whether token tries are exact for a model.
``_tries``, ``_preambles``, ``_batches``
    Prompts → token tries, long shared beginnings, and the arrays of one pass.
``_forward``, with ``_capture``
    One pass; the hooks that pool during it.
"""
