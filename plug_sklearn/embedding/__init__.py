"""Text → activations.

``_transformer``
    :class:`HFEmbeddingTransformer`, the estimator.
``_texts``
    the containers of texts it takes.
``_prompts``
    texts → token ids and the positions to pool.
``_models``
    load, keep and share Hugging Face models and tokenizers.
``_anatomy``
    where each model family keeps its blocks, attention and MLP.
``_batches``
    token ids → padded batches.
``_forward``
    batches → pooled activations.
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
