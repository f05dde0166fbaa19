"""What a store knows of models and settings, and how much it holds of each."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any

from plug_sklearn.embedding.store._environments import Environment
from plug_sklearn.embedding.store._holdings import (
    KEY_SIZE,
    delete_some,
    measure_extents,
)
from plug_sklearn.embedding.store._mapping import Transaction

_PREFIX = b"settings:"
_DELETED_AT_ONCE = 10_000


@dataclass(frozen=True)
class StoredModel:
    """What an activation store holds of one model with one group of settings.

    Parameters
    ----------
    model : str
        The model.
    settings : dict
        What else the activations depend on.
    n_prompts : int
        Distinct prompts.
    n_bytes : int
        Bytes of their records.
    """

    model: str
    settings: dict[str, Any]
    n_prompts: int
    n_bytes: int


def describe_settings(model: str, settings: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Give the key of settings, and their canonical JSON, which it is a digest of."""
    try:
        text = json.dumps(
            {"model": model, "settings": dict(settings)},
            sort_keys=True,
            separators=(",", ":"),
            allow_nan=False,
        )
    except (TypeError, ValueError) as error:
        raise TypeError(
            "The 'settings' parameter of ActivationStore.register must hold only what "
            f"JSON can: {error}. Got {dict(settings)!r} instead."
        ) from error
    return _digest(text.encode()), text.encode()


def _digest(text: bytes | memoryview) -> bytes:
    return blake2b(text, digest_size=KEY_SIZE).digest()


def add_settings(environment: Environment, key: bytes, text: bytes) -> None:
    """Keep the description of settings, if it is not there, or not right any more."""
    if not environment.read(lambda transaction: knows_settings(transaction, key)):
        environment.write(lambda transaction: transaction.put(_PREFIX + key, text))


def knows_settings(transaction: Transaction, key: bytes) -> bool:
    """Tell whether a key of settings has been given out."""
    return _describe(transaction, key) is not None


def _describe(transaction: Transaction, key: bytes) -> dict[str, Any] | None:
    """Read the description of settings; None if it is not what the key is made of."""
    text = transaction.get(_PREFIX + key)
    if text is None or _digest(text) != key:
        return None
    described: dict[str, Any] = json.loads(bytes(text))
    return described


def list_models(transaction: Transaction) -> list[StoredModel]:
    """List the models and settings that something is held of, sorted."""
    models = []
    for key, extent in measure_extents(transaction).items():
        # Records are only written under settings that are known.
        found = _describe(transaction, key)
        if found is not None:
            models.append(StoredModel(**found, **vars(extent)))
    return sorted(models, key=lambda stored: (stored.model, str(stored.settings)))


def delete_model(environment: Environment, model: str) -> int:
    """Delete what is held of a model; gives the number of its prompts."""

    def find_settings(transaction: Transaction) -> tuple[list[bytes], int]:
        keys, n_prompts = [], 0
        extents = measure_extents(transaction)
        for key, extent in extents.items():
            found = _describe(transaction, key)
            if found is not None and found["model"] == model:
                keys.append(key)
                n_prompts += extent.n_prompts
        return keys, n_prompts

    keys, n_prompts = environment.read(find_settings)
    for key in keys:
        # A transaction keeps in memory what it changes.
        some = partial(delete_some, settings=key, at_most=_DELETED_AT_ONCE)
        while environment.write(some):
            pass
    return n_prompts
