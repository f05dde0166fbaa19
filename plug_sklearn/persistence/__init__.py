"""Fitted estimators ⇄ files that are safe to load.

``_artifacts``
    :func:`save_artifacts` and :func:`load_artifacts`.
``_describing``, ``_restoring``
    Estimators → records and tensors, and back.
``_schema``
    What the JSON may say; with ``_parameters`` and ``_labels`` for its values.
``_tensors``, ``_files``
    The two files: checked before they are used, and written whole.
``_pingkit``
    Files of pingkit → estimators.
``_skops``
    The types that skops is to trust.
"""

from plug_sklearn._provenance import ProvenanceWarning
from plug_sklearn.persistence._artifacts import load_artifacts, save_artifacts
from plug_sklearn.persistence._skops import SKOPS_TRUSTED

__all__ = ["SKOPS_TRUSTED", "ProvenanceWarning", "load_artifacts", "save_artifacts"]
