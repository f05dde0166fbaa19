"""Scikit-learn classifiers on features of language models.

``_stack``
    The classifier that combines linear probes of all layers.
``_stack_probes``, ``_ridge``
    Fit its probes, by ridge logistic regression, and choose their weights.
``_mlp``, ``_cnn``
    The classifiers on one vector, or on several vectors, for each text.
``_token``, ``_token_data``, ``_token_batches``, ``_token_training``
    The classifier on the features of tokens: texts of different lengths.
``_token_predictions``, ``_token_targets``
    Its predictions of single tokens, and checks of labels of tokens.
``_token_network``, ``_token_aggregation``, ``_token_stream``
    Its network: how scores of tokens become those of texts, at once or token by token.
``_base``, ``_fitting``
    The base class of those that train networks: ``fit`` and predictions; preparing,
    keeping and pickling the network.
``_data``, ``_splitting``
    Check what users pass to ``fit`` and ``predict``, merge equal samples, and hold out
    validation samples.
``_sizing``
    Choose the widths of the networks.
``_networks``, ``_layers``
    The networks, and their layers: plain torch modules.
``_training``, ``_batches``, ``_losses``
    Train a network with skorch's loop: batches of samples, losses, and temperature
    scaling.
``_monitoring``
    Score each epoch, stop early, and keep the best epoch.
``_joint``
    Train the MLPs of several layers and folds together.
``_prediction``
    Apply a trained network to samples, and predict labels; its gradients, and its
    linear path.
"""

from plug_sklearn.classifiers._cnn import PlugCNNClassifier
from plug_sklearn.classifiers._joint import (
    can_fit_jointly,
    count_joint_probes,
    fit_jointly,
)
from plug_sklearn.classifiers._mlp import PlugMLPClassifier
from plug_sklearn.classifiers._networks import (
    CNNNetwork,
    MLPNetwork,
    initialise_parameters,
)
from plug_sklearn.classifiers._prediction import average_gradient, read_linear_path
from plug_sklearn.classifiers._sizing import (
    CNNWidths,
    MLPWidths,
    count_cnn_parameters,
    count_mlp_parameters,
    find_width_limit,
    size_cnn,
    size_cnn_by_budget,
    size_mlp,
    size_mlp_by_budget,
)
from plug_sklearn.classifiers._stack import PlugStackClassifier
from plug_sklearn.classifiers._token import PlugTokenClassifier

__all__ = [
    "CNNNetwork",
    "CNNWidths",
    "MLPNetwork",
    "MLPWidths",
    "PlugCNNClassifier",
    "PlugMLPClassifier",
    "PlugStackClassifier",
    "PlugTokenClassifier",
    "average_gradient",
    "can_fit_jointly",
    "count_cnn_parameters",
    "count_joint_probes",
    "count_mlp_parameters",
    "find_width_limit",
    "fit_jointly",
    "initialise_parameters",
    "read_linear_path",
    "size_cnn",
    "size_cnn_by_budget",
    "size_mlp",
    "size_mlp_by_budget",
]

# Files name a class by its module: this name stays when the private modules change.
PlugCNNClassifier.__module__ = PlugMLPClassifier.__module__ = __name__
PlugStackClassifier.__module__ = __name__
PlugTokenClassifier.__module__ = __name__
