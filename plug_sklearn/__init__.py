"""Read what a language model knows out of its hidden states, with scikit-learn.

The flow, one sub-package a step:

``embedding``
    text → activations: :class:`HFEmbeddingTransformer`.
``features``
    activations → features: :class:`LayerAggregator`.
``classifiers``
    features → probabilities: :class:`PlugMLPClassifier` and
    :class:`PlugCNNClassifier`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plug_sklearn.classifiers import PlugCNNClassifier, PlugMLPClassifier
    from plug_sklearn.embedding import HFEmbeddingTransformer
    from plug_sklearn.features import LayerAggregator

__version__ = "0.1.0"
__all__ = [
    "HFEmbeddingTransformer",
    "LayerAggregator",
    "PlugCNNClassifier",
    "PlugMLPClassifier",
]

# Each name loads its room when it is first used: torch, transformers and skorch take
# seconds to import, and a user of one room should not wait for all of them.
_ROOMS = {
    "HFEmbeddingTransformer": "embedding",
    "LayerAggregator": "features",
    "PlugCNNClassifier": "classifiers",
    "PlugMLPClassifier": "classifiers",
}


def __getattr__(name: str) -> object:
    if name in _ROOMS:
        return getattr(import_module(f"plug_sklearn.{_ROOMS[name]}"), name)
    raise AttributeError(f"module 'plug_sklearn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
