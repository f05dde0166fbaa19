"""Activations on disk, so that each text goes through a model once.

``_store``
    :class:`ActivationStore`: read, write and claim the activations of prompts.
``_folder``
    Its base class: open, list, compact and close the folder.
``_exchange``
    Export activations to safetensors files with an index, and import them.
``_requests``
    Check the arguments of its methods.
``_records``, ``_layouts``
    Which vectors the store holds of each prompt, and in which order; computes
    checksums.
``_record_reader``
    Read the vectors of many prompts, and verify their checksums.
``_vectors``
    The file of vectors, and its data types.
``_settings``
    The models and settings that the store holds activations of.
``_claims``
    Claims: which process computes which prompt, and whether it still runs.
``_database``
    The SQLite file: its tables and format, connections, and errors.
"""

from plug_sklearn.embedding.store._database import StoreError
from plug_sklearn.embedding.store._settings import StoredModel
from plug_sklearn.embedding.store._store import ActivationStore

__all__ = ["ActivationStore", "StoreError", "StoredModel"]
