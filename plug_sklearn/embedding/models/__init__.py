"""Hugging Face models: loading, sharing, adapters and identity.

``_sources``
    Where a model comes from, the error message if its files are missing, its identity
    (its hub commit or a digest of its files), and the warning if it has changed since
    ``fit``.
``_loading``
    Load models, their tokenizers and configurations, and keep them.
``_sharing``
    Models in memory, shared among threads: a cache, and a lock that is taken in turns.
``_causal``
    A model with its language-model head, around the backbone that is read.
``_registered``
    Models in memory, under names that estimators can use.
``_geometry``
    Numbers of layers, widths and maximum lengths, read from the configuration.
``_checkpoints``
    Check that the files of a model contain all weights that are needed.
``_adapters``, with ``_adapter_files``
    PEFT adapters: how they are applied, and their files.
``_gguf``
    Convert GGUF files to safetensors.
"""

from plug_sklearn.embedding.models._adapter_files import (
    check_adapter,
    find_adapter,
    require_safetensors,
)
from plug_sklearn.embedding.models._causal import NoHeadError, load_causal
from plug_sklearn.embedding.models._checkpoints import require_weights
from plug_sklearn.embedding.models._geometry import (
    Geometry,
    find_attention_window,
    find_index_limit,
    find_rotary_threshold,
    find_row_multiple,
    read_geometry,
)
from plug_sklearn.embedding.models._gguf import CACHE
from plug_sklearn.embedding.models._loading import (
    WeightOptions,
    load_config,
    load_model,
    load_tokenizer,
    release_models,
)
from plug_sklearn.embedding.models._registered import (
    REGISTERED,
    find_registered,
    register_model,
    unregister_model,
)
from plug_sklearn.embedding.models._sharing import PATIENCE, LoadedModel, Turns
from plug_sklearn.embedding.models._sources import (
    FETCHING,
    ModelSource,
    file_state,
    find_commit,
    find_origin,
    identify_model,
    warn_of_change,
)

__all__ = [
    "CACHE",
    "FETCHING",
    "PATIENCE",
    "REGISTERED",
    "Geometry",
    "LoadedModel",
    "ModelSource",
    "NoHeadError",
    "Turns",
    "WeightOptions",
    "check_adapter",
    "file_state",
    "find_adapter",
    "find_attention_window",
    "find_commit",
    "find_index_limit",
    "find_origin",
    "find_registered",
    "find_rotary_threshold",
    "find_row_multiple",
    "identify_model",
    "load_causal",
    "load_config",
    "load_model",
    "load_tokenizer",
    "read_geometry",
    "register_model",
    "release_models",
    "require_safetensors",
    "require_weights",
    "unregister_model",
    "warn_of_change",
]
