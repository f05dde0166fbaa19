"""Which model it is: its commit on the hub, or what its own files hold."""

import json
import os
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

from plug_sklearn._provenance import ProvenanceWarning
from plug_sklearn._warnings import warn_user
from plug_sklearn.embedding.models._models import (
    ModelSource,
    find_commit,
    list_model_files,
    tell_state,
)
from plug_sklearn.embedding.models._shelf import Shelf

#: Where a store keeps the digests of local files.
MEMORY_NAME = "local_files.json"

# Reading all of a model's files takes as long as loading it.
_DIGESTS = Shelf(size=16)
_COMPARED = Shelf(size=64)


def identify_model(source: ModelSource, store: Path) -> str:
    """Name a model so that two that differ never have one name.

    Parameters
    ----------
    source : ModelSource
        Where it comes from.
    store : Path
        Folder of the store, which remembers the digests of local files: they are read
        once, and again when their size or time has changed.

    Returns
    -------
    str
        The hub's id and commit; or the last part of the local path and a digest of the
        files there.
    """
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
    return f"{path.resolve().name}#{digest_files(path.resolve(), store / MEMORY_NAME)}"


def find_origin(source: ModelSource) -> str | None:
    """Tell what a model is now: its commit on the hub, or a digest of local files."""
    path = source.path
    if not path.exists():
        return find_commit(source)
    digest: str = _DIGESTS.take(
        tell_state(source), lambda: digest_files(path.resolve(), None)
    )
    return digest


def warn_of_change(source: ModelSource, origin: str) -> None:
    """Warn, once in a process, if a model is not what it was.

    Parameters
    ----------
    source : ModelSource
        Where the model comes from.
    origin : str
        What ``find_origin`` gave when an estimator was fitted with it.
    """

    def compare() -> None:
        found = find_origin(source)
        if found != origin:
            warn_user(
                f"The language model {source.name!r} is not what it was when "
                f"HFEmbeddingTransformer was fitted: it was {origin}, and is {found} "
                "here. Predictions may differ: fit again, or name the model of then in "
                "'model_name' and 'revision'.",
                ProvenanceWarning,
            )

    _COMPARED.take((tell_state(source), origin), compare)


def digest_files(path: Path, memory: Path | None) -> str:
    """Digest a local model's files, or the one file that it is.

    With a memory, a file that was digested and is gone counts with what it held:
    activations that are stored do not need the weights any more.
    """
    known: dict[str, dict[str, Any]] = {}
    if memory is not None:
        known = _recall(memory).get(str(path), {})
    digested = dict(known)
    for name, stat in list_model_files(path):
        file = Path(name)
        state = {"size": stat.st_size, "time": stat.st_mtime_ns}
        if not state.items() <= digested.get(file.name, {}).items():
            digested[file.name] = {**state, "digest": _digest_file(file)}
    if memory is not None and digested != known:
        _remember(memory, str(path), digested)
    whole = blake2b(digest_size=16)
    for name in sorted(digested):
        whole.update(f"{name}:{digested[name]['digest']};".encode())
    return whole.hexdigest()


def _digest_file(file: Path) -> str:
    digest = blake2b(digest_size=16)
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _recall(memory: Path) -> dict[str, Any]:
    try:
        remembered = json.loads(memory.read_text())
    except (OSError, ValueError):
        # What is not remembered is digested again.
        return {}
    return remembered if isinstance(remembered, dict) else {}


def _remember(memory: Path, path: str, digested: dict[str, dict[str, Any]]) -> None:
    remembered = {**_recall(memory), path: digested}
    written = memory.with_name(f"{memory.name}.{os.getpid()}")
    try:
        written.write_text(json.dumps(remembered, indent=1))
        written.replace(memory)
    except OSError:
        # A store that may only be read remembers nothing new.
        with suppress(OSError):
            written.unlink()
