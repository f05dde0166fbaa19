"""Features → probabilities: small networks as scikit-learn classifiers.

``_mlp``, ``_cnn``
    The two estimators, and ``_classifiers``, what they share.
``_inputs``
    What users pass to ``fit`` and ``predict`` → checked rows, with ``_labels`` for
    labels and weights, and ``_distinct_rows``, those that differ.
``_splitting``
    Rows → training and validation rows, with ``_stratification`` for samples that have
    several labels.
``_sizing``, ``_budget``
    Samples and shapes → widths, with ``_width_limit`` for those that are limits.
``_networks``, ``_cnn_network``
    The networks, of several members at once: plain torch modules, of ``_layers``
    and ``_members``.
``_mixture``
    Classifiers of one sample → their mean, weighed by how well each predicts.
``_projection``
    Features → the directions in which they vary most.
``_losses``
    The losses.
``_training``
    The skorch net that trains a network, with ``_rows`` for batches.
``_side_by_side``
    Probes on other features or rows → trained at once, by steps of a ``_convoy``.
``_prediction``
    A network and samples → what it computes of each, with ``_precision`` for copies
    in double precision.
``_plain_state``
    A fitted classifier ⇄ plain values and arrays: what pickles and files hold.
``_callbacks``
    The callbacks of users, checked.
``_sharpness``
    Logits of rows held out → how sure to be.
``_documentation``
    What the docstrings of both estimators say alike.
``_scoring``, ``_stopping``
    Epochs → scores → the epoch whose weights are kept, with ``_monitors`` for what
    users ask to be scored.
"""

from plug_sklearn.classifiers._cnn import PlugCNNClassifier
from plug_sklearn.classifiers._mlp import PlugMLPClassifier

__all__ = ["PlugCNNClassifier", "PlugMLPClassifier"]

# Files name a class by its module: this name stays when the private modules change.
PlugCNNClassifier.__module__ = PlugMLPClassifier.__module__ = __name__
