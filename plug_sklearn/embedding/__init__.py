"""Texts → activations.

``_transformer``
    :class:`HFEmbeddingTransformer`, the estimator.
``_token_labels``
    Labels of tokens from spans of characters.
``_random_weights``
    The same model with random weights, as a control.
``_parameters``
    Check the parameters of the estimator.
``_fitted``
    What ``fit`` has found: the names of its output, and a description of the model,
    compared with parameters that have been set since.
``_rows``
    Rows of X and of the activations: memory, dtype, and errors with positions.
``_embed``
    Compute the activations of texts, or read them from a store; share the work among
    workers.
``_language_model``
    A model with its prompts and settings, which computes activations of texts.
``prompts``
    Texts → token ids, and which tokens are pooled.
``models``
    Hugging Face models: loading, sharing, adapters, identity, and whether a model has
    changed since ``fit``.
``anatomy``
    Where a model keeps its blocks, its attention and its MLPs.
``passes``
    Token ids → pooled activations, with the fastest strategy that is exact.
``store``
    Activations on disk, so that each text goes through a model once.
"""

# For the other rooms.
from plug_sklearn.embedding._fitted import describe_model as describe_model
from plug_sklearn.embedding._language_model import LanguageModel as LanguageModel
from plug_sklearn.embedding._random_weights import with_random_weights
from plug_sklearn.embedding._token_labels import token_labels
from plug_sklearn.embedding._transformer import HFEmbeddingTransformer
from plug_sklearn.embedding.anatomy import Anatomy, register_anatomy
from plug_sklearn.embedding.models import (
    register_model,
    release_models,
    unregister_model,
)
from plug_sklearn.embedding.prompts import list_texts
from plug_sklearn.embedding.store import ActivationStore, StoredModel, StoreError

__all__ = [
    "ActivationStore",
    "Anatomy",
    "HFEmbeddingTransformer",
    "StoreError",
    "StoredModel",
    "list_texts",
    "register_anatomy",
    "register_model",
    "release_models",
    "token_labels",
    "unregister_model",
    "with_random_weights",
]
