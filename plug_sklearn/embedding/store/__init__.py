"""Activations on disk, by content: each text goes through a model once.

``_store``
    :class:`ActivationStore`, what users open.
``_recall``
    Activations from a store where it holds them, from the model where not.
``_holdings``, ``_records``, ``_formats``
    What is held of each prompt; its bytes, with checksums; the versions of both.
``_catalog``, ``_registry``
    The models and settings of a store; which stores this process has open.
``_claims``, ``_presence``
    Who computes what, over all processes; which of them still live.
``_environments``, ``_compaction``, ``_failures``
    LMDB, wrapped; giving space back; what can go wrong, said clearly.
"""
