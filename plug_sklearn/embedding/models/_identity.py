"""Identify a model by its commit on the hub, or by a digest of its local files."""

import json
import os
from contextlib import suppress
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any

from plug_sklearn._provenance import ProvenanceWarning
from plug_sklearn._warnings import warn_user
from plug_sklearn.embedding.models._registered import find_registered
from plug_sklearn.embedding.models._sharing import LRUCache
from plug_sklearn.embedding.models._sources import (
    ModelSource,
    file_state,
    find_commit,
    list_model_files,
)

#: The file in which a store keeps the digests of local files.
DIGESTS_NAME = "local_files.json"

# Reading all of a model's files takes as long as loading it.
_DIGESTS = LRUCache(size=16)
_COMPARED = LRUCache(size=64)


def identify_model(source: ModelSource, store: Path) -> str:
    """Return a name of a model that no other model has.

    The name is the hub's id and commit, or the last part of the local path and a digest
    of the files there. The store keeps these digests in its folder: files are read
    once, and again when their size or time has changed. A model that is registered is
    named by a digest of its weights.
    """
    registered = find_registered(source.name)
    if registered is not None:
        return f"{source.name}#{registered.origin}"
    path = source.path
    if not path.exists():
        try:
            commit = find_commit(source)
        except OSError:
            # No weights can be loaded then, and what is stored is of a known commit.
            if source.commit is None:
                raise
            commit = source.commit
        return f"{source.name}@{commit}"
    return f"{path.resolve().name}#{digest_files(path.resolve(), store / DIGESTS_NAME)}"


def find_origin(source: ModelSource) -> str | None:
    """Find what a model is now: its commit on the hub, or a digest of files or weights.

    A digest of weights is that of a registered model, and begins with "registered:".
    """
    registered = find_registered(source.name)
    if registered is not None:
        return registered.origin
    path = source.path
    if not path.exists():
        return find_commit(source)
    digest: str = _DIGESTS.get(
        file_state(source), lambda: digest_files(path.resolve(), None)
    )
    return digest


def warn_of_change(source: ModelSource, origin: str) -> None:
    """Warn, once in a process, if a model is not what it was in ``fit``.

    ``origin`` is what ``find_origin`` gave then.
    """

    def compare() -> None:
        found = find_origin(source)
        if found != origin:
            warn_user(
                f"The language model {source.name!r} has changed since "
                f"HFEmbeddingTransformer was fitted: it was {origin}, and is {found} "
                "here. Predictions may differ. Fit again, or give the earlier model "
                "as 'model_name' and 'revision'.",
                ProvenanceWarning,
            )

    _COMPARED.get((file_state(source), origin), compare)


def digest_files(path: Path, memory: Path | None) -> str:
    """Digest a local model's files, or its one file.

    With `memory`, a JSON file of earlier digests, a file that has been deleted still
    counts: stored activations do not need the weights any more.
    """
    known: dict[str, dict[str, Any]] = {}
    if memory is not None:
        known = _read_digests(memory).get(str(path), {})
    digested = dict(known)
    for name, stat in list_model_files(path):
        file = Path(name)
        state = {"size": stat.st_size, "time": stat.st_mtime_ns}
        if not state.items() <= digested.get(file.name, {}).items():
            digested[file.name] = {**state, "digest": _digest_file(file)}
    if memory is not None and digested != known:
        _write_digests(memory, str(path), digested)
    whole = blake2b(digest_size=16)
    for name in sorted(digested):
        whole.update(f"{name}:{digested[name]['digest']};".encode())
    return whole.hexdigest()


def _digest_file(file: Path) -> str:
    with file.open("rb") as stream:
        return file_digest(stream, lambda: blake2b(digest_size=16)).hexdigest()


def _read_digests(memory: Path) -> dict[str, Any]:
    try:
        digests = json.loads(memory.read_text())
    except (OSError, ValueError):
        # Then all files are digested again.
        return {}
    return digests if isinstance(digests, dict) else {}


def _write_digests(
    memory: Path, path: str, digested: dict[str, dict[str, Any]]
) -> None:
    digests = {**_read_digests(memory), path: digested}
    written = memory.with_name(f"{memory.name}.{os.getpid()}")
    try:
        written.write_text(json.dumps(digests, indent=1))
        written.replace(memory)
    except OSError:
        # A store that may only be read takes no new digests.
        with suppress(OSError):
            written.unlink()
