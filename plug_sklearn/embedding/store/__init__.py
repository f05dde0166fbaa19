"""Activations on disk, by content: each text goes through a model once.

``_store``
    :class:`ActivationStore`, what users open: prompts are read, written and claimed.
``_folder``
    The store as a whole: opened, listed, compacted and closed.
``_exchange``, ``_shards``
    Exported to safetensors files with an index, and imported from them.
``_requests``
    What users ask for, checked.
``_records``, ``_layouts``
    Which vectors are held of each prompt, and the checksum that verifies them; what a
    record holds.
``_vectors``
    Vectors as bytes, and the file that holds them.
``_settings``
    The models and settings of a store, and how much it holds of each.
``_claims``
    Who computes what, over all processes; which of them still live.
``_database``
    The SQLite file: its tables and format, connections, and errors.
"""

from plug_sklearn.embedding.store._database import StoreError
from plug_sklearn.embedding.store._settings import StoredModel
from plug_sklearn.embedding.store._store import ActivationStore

__all__ = ["ActivationStore", "StoreError", "StoredModel"]
