"""Where a model keeps its blocks, its attention and its MLPs.

``_families``
    The table of families.
``_anatomy``
    :class:`Anatomy`, a model's own, and :func:`register_anatomy`.
``_discovery``, with ``_block_lists``, ``_contributions``, ``_tracing`` and ``_modules``
    How an unknown family's is found: by running it on a few random tokens.
``_preserving``
    How a model is run without a trace of it.
"""
