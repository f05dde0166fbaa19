"""Where a model keeps its blocks, its attention and its MLPs.

``_families``
    The table of families, and the paths of modules that it is made of.
``_anatomy``
    A model's own anatomy and blocks; :func:`register_anatomy`.
``_discovery``, with ``_contributions``
    How those of an unknown family are found: by running it on a few random tokens.
``_model_state``
    Run a model on random tokens, and restore its state after a pass.
"""

from plug_sklearn.embedding.anatomy._anatomy import (
    Block,
    anatomy_of,
    find_blocks,
    is_tabled,
    register_anatomy,
    require_parts,
)
from plug_sklearn.embedding.anatomy._families import FAMILIES, Anatomy, Stack
from plug_sklearn.embedding.anatomy._model_state import (
    draw_tokens,
    find_input_device,
    first_tensor,
    list_words,
    restore_state,
    run_random_tokens,
)

__all__ = [
    "FAMILIES",
    "Anatomy",
    "Block",
    "Stack",
    "anatomy_of",
    "draw_tokens",
    "find_blocks",
    "find_input_device",
    "first_tensor",
    "is_tabled",
    "list_words",
    "register_anatomy",
    "require_parts",
    "restore_state",
    "run_random_tokens",
]
