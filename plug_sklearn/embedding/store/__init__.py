"""Activations on disk, by content: each text goes through a model once.

``_store``
    :class:`ActivationStore`, what users open.
``_records``
    The vectors of prompts, with checksums.
``_settings``
    The models and settings of a store, and how much it holds of each.
``_claims``
    Who computes what, over all processes; which of them still live.
``_database``
    The SQLite file: its tables and format, connections, and errors.
"""
