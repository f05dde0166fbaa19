"""The models and settings that a store holds activations of."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from sqlite3 import Connection
from typing import Any

#: Bytes of the key of settings, and of the digest of a prompt.
KEY_SIZE = 16


@dataclass(frozen=True)
class StoredModel:
    """What an activation store holds for one model with given settings.

    Parameters
    ----------
    model : str
        Name of the model.
    settings : dict
        Everything else that the activations depend on.
    n_prompts : int
        Number of distinct prompts.
    n_bytes : int
        Size of their activations in bytes.
    """

    model: str
    settings: dict[str, Any]
    n_prompts: int
    n_bytes: int


def describe_settings(model: str, settings: Mapping[str, Any]) -> str:
    """Write a model and its settings as canonical JSON."""
    try:
        return json.dumps(
            {"model": model, "settings": dict(settings)},
            sort_keys=True,
            separators=(",", ":"),
            allow_nan=False,
        )
    except (TypeError, ValueError) as error:
        raise TypeError(
            "The 'settings' parameter of ActivationStore.register must be values that "
            f"JSON can represent: {error}. Got {dict(settings)!r} instead."
        ) from error


def digest_settings(description: bytes) -> bytes:
    """Compute the key of settings from their description."""
    return blake2b(description, digest_size=KEY_SIZE).digest()


def are_described(connection: Connection, key: bytes) -> bool:
    """Return whether settings are in the store with the right description."""
    found = connection.execute("SELECT description FROM settings WHERE key = ?", (key,))
    row = found.fetchone()
    return row is not None and digest_settings(row[0]) == key


def add_settings(connection: Connection, key: bytes, description: str) -> None:
    """Add settings, or mend their description."""
    connection.execute(
        "INSERT INTO settings (key, description) VALUES (?, ?) "
        "ON CONFLICT (key) DO UPDATE SET description = excluded.description",
        (key, description),
    )


def list_models(connection: Connection) -> list[StoredModel]:
    """List the models and settings that something is held of, sorted by model."""
    models = [
        StoredModel(**json.loads(description), n_prompts=n_prompts, n_bytes=n_bytes)
        for key, description, n_prompts, n_bytes in connection.execute(
            "SELECT key, description, COUNT(DISTINCT digest), SUM(size) "
            "FROM records JOIN settings ON settings.id = records.settings "
            "GROUP BY settings.id"
        )
        if digest_settings(description) == key
    ]
    return sorted(models, key=lambda stored: (stored.model, str(stored.settings)))


def delete_model(connection: Connection, model: str) -> None:
    """Delete all records of a model."""
    for number, key, description in connection.execute(
        "SELECT id, key, description FROM settings"
    ).fetchall():
        if (
            digest_settings(description) == key
            and json.loads(description)["model"] == model
        ):
            connection.execute("DELETE FROM records WHERE settings = ?", (number,))
