"""Which model it is: its commit on the hub, or what its own files hold."""

import json
import os
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

from plug_sklearn.embedding.models._models import (
    ModelSource,
    find_commit,
    list_model_files,
)

#: Where a store keeps the digests of local files.
MEMORY_NAME = "local_files.json"


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
    path = Path(source.name)
    if not path.exists():
        return f"{source.name}@{find_commit(source)}"
    return f"{path.resolve().name}#{digest_files(path.resolve(), store / MEMORY_NAME)}"


def digest_files(path: Path, memory: Path) -> str:
    """Digest a local model's files, or the one file that it is.

    A file that was digested and is gone counts with what it held: activations that
    are stored do not need the weights any more.
    """
    known: dict[str, dict[str, Any]] = _recall(memory).get(str(path), {})
    digested = dict(known)
    for file in list_model_files(path):
        stat = file.stat()
        state = {"size": stat.st_size, "time": stat.st_mtime_ns}
        if not state.items() <= digested.get(file.name, {}).items():
            digested[file.name] = {**state, "digest": _digest_file(file)}
    if digested != known:
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
