r"""Fitted estimators in files that are safe to load.

``_artifacts``
    :func:`save_artifacts`, :func:`load_artifacts` and :func:`push_to_hub`.
``_hub``, ``_card``
    Artifacts on the Hugging Face hub, and model cards.
``_schema``
    The schema of the whole JSON file.
``_tables``, ``_stack_table``, ``_embedding_tables``, ``_linear_tables``, \
``_scaler_tables``
    For each class of estimator: the keys of its JSON, and how to save and restore it.
``_nested_tables``, ``_calibrators``, ``_holding``
    The same for pipelines and other estimators that contain estimators.
``_values``
    Hyperparameters and labels as plain values of JSON.
``_files``
    The two files: strict JSON, checked tensors, atomic writes.
``_pingkit``
    Read the files of pingkit.
"""

from plug_sklearn._provenance import ProvenanceWarning
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
