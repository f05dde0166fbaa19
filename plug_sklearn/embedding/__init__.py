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
"""

from plug_sklearn.embedding._anatomy import Anatomy, register_anatomy
from plug_sklearn.embedding._models import release_models
from plug_sklearn.embedding._transformer import HFEmbeddingTransformer

__all__ = [
    "Anatomy",
    "HFEmbeddingTransformer",
    "register_anatomy",
    "release_models",
]
