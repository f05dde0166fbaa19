"""Scikit-learn classifiers on features of language models: small neural networks.

``_mlp``, ``_cnn``
    The classifiers on one vector, or stack of vectors, a text.
``_token``, ``_token_data``, ``_token_batches``, ``_token_training``
    The classifier on the features of tokens: texts of different lengths.
``_token_network``, ``_token_aggregation``, ``_token_running``, ``_token_stream``
    Its network: how scores of tokens become those of texts, at once or token by token.
``_base``
    Their base class: parameters, ``fit``, predictions and pickles.
``_data``, ``_splitting``
    Check what users pass to ``fit`` and ``predict``, and hold out validation rows.
``_sizing``
    Choose the widths of the networks.
``_networks``, ``_layers``
    The networks, and their layers: plain torch modules.
``_training``, ``_batches``, ``_losses``
    Train a network by skorch's loop, on batches of rows, with these losses.
``_monitoring``
    Score each epoch, stop early, keep the best epoch, and find its temperature.
``_joint``
    Train the MLPs of several layers and folds together.
``_prediction``
    Apply a trained network to samples.
"""

from plug_sklearn.classifiers._cnn import PlugCNNClassifier
from plug_sklearn.classifiers._joint import (
    can_fit_jointly,
    count_joint_probes,
    fit_jointly,
)
from plug_sklearn.classifiers._mlp import PlugMLPClassifier
from plug_sklearn.classifiers._sizing import find_width_limit
from plug_sklearn.classifiers._token import PlugTokenClassifier

__all__ = [
    "PlugCNNClassifier",
    "PlugMLPClassifier",
    "PlugTokenClassifier",
    "can_fit_jointly",
    "count_joint_probes",
    "find_width_limit",
    "fit_jointly",
]

# Files name a class by its module: this name stays when the private modules change.
PlugCNNClassifier.__module__ = PlugMLPClassifier.__module__ = __name__
PlugTokenClassifier.__module__ = __name__
