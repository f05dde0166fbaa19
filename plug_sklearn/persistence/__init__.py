"""Fitted estimators in files that are safe to load.

``_artifacts``
    :func:`save_artifacts` and :func:`load_artifacts`.
``_schema``, ``_tables``
    The JSON; for each class of estimator, its keys, and how to save and restore it.
``_values``
    Hyperparameters and labels as plain values of JSON.
``_files``
    The two files: strict JSON, checked tensors, atomic writes.
``_pingkit``
    Reading of pingkit's files.
"""

from plug_sklearn._provenance import ProvenanceWarning
from plug_sklearn.persistence._artifacts import load_artifacts, save_artifacts

#: Types for the ``trusted`` parameter of ``skops.io.load``. A probe needs its own class
#: alone, since it stores its network as numbers and arrays.
SKOPS_TRUSTED = (
    "plug_sklearn.classifiers.PlugCNNClassifier",
    "plug_sklearn.classifiers.PlugMLPClassifier",
    "plug_sklearn.classifiers.PlugTokenClassifier",
    "plug_sklearn.features.LayerAggregator",
)

__all__ = ["SKOPS_TRUSTED", "ProvenanceWarning", "load_artifacts", "save_artifacts"]
