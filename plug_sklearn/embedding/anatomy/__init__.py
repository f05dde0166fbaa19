"""Where a model keeps its blocks, its attention and its MLPs.

``_families``
    The table of families.
``_anatomy``
    :class:`Anatomy`, a model's own, and :func:`register_anatomy`.
``_discovery``, ``_tracing`` and ``_modules``
    How an unknown family's is found: by structure, and by running it.
"""
