"""Text → activations.

``_transformer``
    :class:`HFEmbeddingTransformer`, the estimator.
``_texts``
    the containers of texts it takes.
``_prompts``, with ``_frames`` and ``_special``
    texts → token ids and the positions to pool; what stands around a text; special
    tokens, and text that spells them.
``_models``, ``_geometry``
    load, keep and share Hugging Face models; what a configuration alone tells.
``_anatomy``, with ``_families``, ``_discovery``, ``_tracing`` and ``_modules``
    where a model keeps its blocks, attention and MLP: the table of families, and how
    an unknown family is found out.
``_tokenized``, ``_tries``, ``_preambles`` and ``_batches``
    token ids → token tries, long shared beginnings, and the arrays of one pass.
``_reading``, with ``_exactness``, ``_forward`` and ``_capture``
    all prompts → activations by the shortest way that is exact; whether token tries
    are; one pass; and the hooks that pool during it.
``_language_model``
    a model, its prompts and its pooling in one: distinct texts → activations.
``_recall``, with ``_store`` and ``_identity``
    activations from the store where it holds them, each computed once; which model
    they are of.
"""

from plug_sklearn.embedding._anatomy import Anatomy, register_anatomy
from plug_sklearn.embedding._catalog import StoredModel
from plug_sklearn.embedding._failures import StoreError
from plug_sklearn.embedding._models import release_models
from plug_sklearn.embedding._store import ActivationStore
from plug_sklearn.embedding._transformer import HFEmbeddingTransformer

__all__ = [
    "ActivationStore",
    "Anatomy",
    "HFEmbeddingTransformer",
    "StoreError",
    "StoredModel",
    "register_anatomy",
    "release_models",
]
