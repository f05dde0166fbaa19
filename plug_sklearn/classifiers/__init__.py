"""Scikit-learn classifiers on features of language models.

``_stack``
    The join of linear probes of all layers.
``_probe_fits``, ``_ridge``, ``_join``, ``_threads``
    Fit its probes, by ridge logistic regression, and join them.
``_mlp``, ``_cnn``
    The two classifiers that are small neural networks.
``_base``
    Their base class: parameters, ``fit``, predictions and pickles.
``_data``, ``_geometry``, ``_splitting``
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
from plug_sklearn.classifiers._stack import PlugStackClassifier

__all__ = [
    "PlugCNNClassifier",
    "PlugMLPClassifier",
    "PlugStackClassifier",
    "can_fit_jointly",
    "count_joint_probes",
    "find_width_limit",
    "fit_jointly",
]

# Files name a class by its module: this name stays when the private modules change.
PlugCNNClassifier.__module__ = PlugMLPClassifier.__module__ = __name__
PlugStackClassifier.__module__ = __name__
