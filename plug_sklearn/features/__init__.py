"""Features from activations.

``_aggregator``
    :class:`LayerAggregator`, the estimator.
``_arrays``
    Convert the activations that users pass into numpy arrays.
``_npz``
    Activations in files: :func:`load_npz_features` and :func:`save_npz_features`.
"""

from plug_sklearn.features._aggregator import LayerAggregator
from plug_sklearn.features._npz import NpzFeatures, load_npz_features, save_npz_features

__all__ = ["LayerAggregator", "NpzFeatures", "load_npz_features", "save_npz_features"]

# Files name a class by its module: this name stays when the private modules change.
LayerAggregator.__module__ = __name__
