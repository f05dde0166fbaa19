"""Hugging Face models: load and share them, and tell them apart.

``_sources``
    Where a model comes from, its files, and what is said where they are missing.
``_loading``
    Load, keep and share models, their tokenizers and configurations.
``_causal``
    A model with its language-model head, around the backbone that is read.
``_registered``
    Models in memory, under names that estimators can use.
``_geometry``
    What a configuration alone tells: layers, widths, and lengths of text.
``_checkpoints``
    Whether a model's files hold all weights that are read.
``_adapter_files``, ``_adapters``
    PEFT adapters: their files, and how they are applied.
``_gguf``, with the script ``_gguf_conversion``
    GGUF files, converted to safetensors.
``_identity``
    Which model it is, by its hub commit or a digest of its files.
"""

from plug_sklearn.embedding.models._adapter_files import (
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
from plug_sklearn.embedding.models._identity import (
    find_origin,
    identify_model,
    warn_of_change,
)
from plug_sklearn.embedding.models._loading import (
    LoadedModel,
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
from plug_sklearn.embedding.models._sources import (
    FETCHING,
    ModelSource,
    file_state,
    find_commit,
)

__all__ = [
    "FETCHING",
    "REGISTERED",
    "Geometry",
    "LoadedModel",
    "ModelSource",
    "NoHeadError",
    "WeightOptions",
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
