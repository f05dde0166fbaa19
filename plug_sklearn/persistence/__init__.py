"""Fitted estimators in files that are safe to load.

``_artifacts``
    :func:`save_artifacts`, :func:`load_artifacts` and :func:`push_to_hub`.
``_hub``
    Model cards, and artifacts on the Hugging Face hub.
``_tables``
    The base classes of tables. The table of a class of estimators holds the keys of
    its JSON, and says how to save and restore it.
``_transformer_tables``
    Tables of the embedder, the aggregator, and scikit-learn's scalers and PCA.
``_probe_tables``, ``_linear_tables``
    Tables of the package's classifiers, and of scikit-learn's linear classifiers and
    calibrators.
``_nested_tables``
    Tables of pipelines and other estimators that contain estimators.
``_values``
    Hyperparameters as plain JSON values.
``_files``
    The two files: strict JSON, checked tensors, atomic writes.
``_pingkit``
    Read the files of pingkit.
"""

from plug_sklearn._packages import ProvenanceWarning
from plug_sklearn.persistence._artifacts import (
    load_artifacts,
    push_to_hub,
    save_artifacts,
)

#: Types for the ``trusted`` parameter of ``skops.io.load``. A probe only needs its
#: own class, because it stores its network as numbers and arrays.
SKOPS_TRUSTED = (
    "plug_sklearn.classifiers.PlugCNNClassifier",
    "plug_sklearn.classifiers.PlugMLPClassifier",
    "plug_sklearn.classifiers.PlugStackClassifier",
    "plug_sklearn.classifiers.PlugTokenClassifier",
    "plug_sklearn.features.LayerAggregator",
)

__all__ = [
    "SKOPS_TRUSTED",
    "ProvenanceWarning",
    "load_artifacts",
    "push_to_hub",
    "save_artifacts",
]
