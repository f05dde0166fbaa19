"""Text → activations.

``_transformer``
    :class:`HFEmbeddingTransformer`, the estimator.
``_token_labels``
    Labels of tokens from spans of characters.
``_parameters``
    Its parameters, checked, and the model that they describe.
``_output``
    Names, containers and tags of the activations that it gives.
``_embed``
    Texts → rows of activations, through a store; the work split over workers.
``_language_model``
    A model, its prompts and its pooling in one: distinct texts → activations.
``prompts``
    Texts → token ids, and the positions to pool.
``models``
    Hugging Face models: loaded, shared and told apart.
``anatomy``
    Where a model keeps its blocks, its attention and its MLPs.
``passes``
    Token ids → pooled activations, by the shortest way that is exact.
``store``
    Activations on disk, by content: each text goes through a model once.
"""

from plug_sklearn.embedding._token_labels import token_labels
from plug_sklearn.embedding._transformer import HFEmbeddingTransformer
from plug_sklearn.embedding.anatomy import Anatomy, register_anatomy
from plug_sklearn.embedding.models import (
    register_model,
    release_models,
    unregister_model,
)
from plug_sklearn.embedding.store._database import StoreError
from plug_sklearn.embedding.store._settings import StoredModel
from plug_sklearn.embedding.store._store import ActivationStore

__all__ = [
    "ActivationStore",
    "Anatomy",
    "HFEmbeddingTransformer",
    "StoreError",
    "StoredModel",
    "register_anatomy",
    "register_model",
    "release_models",
    "token_labels",
    "unregister_model",
]
