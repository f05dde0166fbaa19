"""Where a model or an adapter comes from, and its identity.

A model is identified by its commit on the hub, or by a digest of its local files.
"""

import json
import os
import re
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any

from transformers.utils.hub import cached_file

from plug_sklearn._hub_access import is_hub_reachable
from plug_sklearn._packages import ProvenanceWarning
from plug_sklearn._warnings import warn_user
from plug_sklearn.embedding.models._gguf import convert_gguf
from plug_sklearn.embedding.models._registered import find_registered
from plug_sklearn.embedding.models._sharing import LRUCache

ADAPTER_CONFIG_NAME = "adapter_config.json"

#: Files that decide what a model computes, unlike a README or a training log.
MODEL_SUFFIXES = frozenset(
    {".bin", ".gguf", ".jinja", ".json", ".model", ".py", ".safetensors", ".txt"}
)

#: Arguments of ``from_pretrained`` that say how files are fetched, and not which.
FETCHING = frozenset(
    {"cache_dir", "force_download", "local_files_only", "proxies", "token"}
)
#: Those that say where files are: configuration, tokenizer and weights need them all.
LOCATING = FETCHING | {
    "code_revision",
    "gguf_file",
    "revision",
    "subfolder",
    "trust_remote_code",
}

#: The file in which a store keeps the digests of local files.
DIGESTS_NAME = "local_files.json"

# Reading all of a model's files takes as long as loading it.
_DIGESTS = LRUCache(size=16)
_COMPARED = LRUCache(size=64)

#: What can be the name of a repository: a path is told from it.
_HUB_ID = re.compile(r"[A-Za-z0-9_][\w.-]*(/[\w.-]+)?")


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from, and everything that decides which weights it has.

    ``name`` is a hub id, a local folder, or the path of a GGUF file. ``commit`` is what
    ``revision`` was when the model was last seen, for messages. ``model_kwargs`` are
    more arguments for ``from_pretrained``. ``parameter`` names the source in messages:
    the parameter of a model or an adapter.
    """

    name: str
    revision: str | None = None
    trust_remote_code: bool = False
    commit: str | None = field(default=None, compare=False, repr=False)
    model_kwargs: Mapping[str, Any] = field(
        default_factory=dict, hash=False, repr=False
    )
    parameter: str = "model_name"

    @property
    def path(self) -> Path:
        """The folder or file, if the model is local."""
        return Path(self.name, self.model_kwargs.get("subfolder") or "")

    def loading_arguments(self) -> tuple[str, dict[str, Any]]:
        """Return what every ``from_pretrained`` needs to find this source."""
        arguments: dict[str, Any] = {"trust_remote_code": self.trust_remote_code}
        if self.revision is not None:
            arguments["revision"] = self.revision
        arguments |= {k: v for k, v in self.model_kwargs.items() if k in LOCATING}
        path = Path(self.name)
        if path.suffix.lower() == ".gguf" and path.is_file():
            folder = convert_gguf(path)
            if folder is not None:
                return str(folder), arguments
            return str(path.parent), {**arguments, "gguf_file": path.name}
        self._refuse_other_paths(path)
        is_local = path.exists() or arguments.get("local_files_only")
        if not is_local and not is_hub_reachable():
            arguments["local_files_only"] = True
        return self.name, arguments

    def _refuse_other_paths(self, path: Path) -> None:
        """Raise a FileNotFoundError for what is neither a folder nor a hub id."""
        is_hub_id = _HUB_ID.fullmatch(self.name) is not None and path.suffix != ".gguf"
        if self.name and (path.is_dir() or (is_hub_id and not path.exists())):
            return
        kinds = "a hub id or an existing folder"
        if self.parameter == "model_name":
            kinds = (
                "a hub id, an existing folder or GGUF file, or the name of a model in "
                "memory"
            )
        what = ", which does not exist"
        if path.is_file():
            what = ", which is a file of another kind"
            if path.suffix.lower() == ".safetensors":
                what = ", which is a file of weights: give its folder, with config.json"
        raise FileNotFoundError(
            f"The {self.parameter!r} parameter of HFEmbeddingTransformer must be "
            f"{kinds}. Got {self.name!r} instead{what if self.name else ''}."
        )

    def as_adapter(self, name: str) -> "ModelSource":
        """Return the source of an adapter, which is fetched as this model is."""
        if name == self.name:
            # An adapter in the model's own repository.
            return replace(self, parameter="adapter")
        kept = FETCHING | {"use_safetensors"}
        fetching = {k: v for k, v in self.model_kwargs.items() if k in kept}
        return ModelSource(name, model_kwargs=fetching, parameter="adapter")

    @property
    def config_name(self) -> str:
        """The file that every such repository has."""
        if self.parameter == "adapter":
            return ADAPTER_CONFIG_NAME
        return str(self.model_kwargs.get("gguf_file") or "config.json")

    def fetching_arguments(self) -> dict[str, Any]:
        """Return what ``cached_file`` needs to find one of the source's files."""
        _, arguments = self.loading_arguments()
        for name in ("trust_remote_code", "code_revision", "gguf_file"):
            arguments.pop(name, None)
        # The file that is looked up was fetched with the model.
        return {**arguments, "force_download": False}


def list_model_files(path: Path) -> list[tuple[str, os.stat_result]]:
    """List the files of a local model that decide what it computes, and their state."""
    if path.is_file():
        return [(str(path), path.stat())] if path.suffix in MODEL_SUFFIXES else []
    # Each request looks for changes: an entry costs one call, or none if it is other.
    with os.scandir(path) as entries:
        return sorted(
            (entry.path, entry.stat())
            for entry in entries
            if os.path.splitext(entry.name)[1] in MODEL_SUFFIXES and entry.is_file()
        )


def find_commit(source: ModelSource) -> str | None:
    """Find the hub commit that a source's configuration comes from.

    None for a local folder or file, and for a model that is registered.
    """
    if find_registered(source.name) is not None or Path(source.name).exists():
        return None
    with explain_missing_files(source):
        path = cached_file(
            source.name, source.config_name, **source.fetching_arguments()
        )
    found = re.search(r"snapshots[/\\]([0-9a-f]{40})[/\\]", str(path))
    return found.group(1) if found else None


def file_state(source: ModelSource) -> Hashable:
    """Return a key of a source that changes with its local files or its weights."""
    registered = find_registered(source.name)
    if registered is not None:
        return (source, registered.digest())
    if not source.path.exists():
        return source
    stats = tuple(
        (file, stat.st_mtime_ns, stat.st_size)
        for file, stat in list_model_files(source.path)
    )
    return (source, stats)


@contextmanager
def explain_missing_files(source: ModelSource) -> Iterator[None]:
    """Turn errors of the hub's client into ones that say how to get the files."""
    try:
        yield
    except (OSError, ValueError) as error:
        if source.path.is_dir():
            _explain_folder(source, error)
        # A path that does not exist has been explained.
        is_hub_id = _HUB_ID.fullmatch(source.name) is not None
        if Path(source.name).exists() or isinstance(error, ValueError) or not is_hub_id:
            raise
        wanted = source.commit or source.revision
        revision = f" --revision {wanted}" if wanted else ""
        thing = "language model" if source.parameter == "model_name" else "adapter"
        raise OSError(
            f"The {thing} {source.name!r} (revision {source.revision or 'main'!r}, "
            f"commit {source.commit or 'unknown'}) is not on this machine and could "
            "not be downloaded from the hub. When you are online, download it with "
            f"'hf download {source.name}{revision}'. Or give the path of a local copy "
            f"as the {source.parameter!r} parameter of HFEmbeddingTransformer, or "
            "register a model in memory with register_model in each process that uses "
            "it."
        ) from error


def _explain_folder(source: ModelSource, error: Exception) -> None:
    """Explain what is wrong with a folder that holds no model, or no adapter."""
    if source.parameter == "adapter":
        raise ValueError(
            "The 'adapter' parameter of HFEmbeddingTransformer must name a folder with "
            f"an adapter_config.json. Got {source.name!r} instead."
        ) from error
    config = source.path / ADAPTER_CONFIG_NAME
    weights = ("model*.safetensors*", "pytorch_model*.bin*")
    held = any(any(source.path.glob(pattern)) for pattern in weights)
    if config.exists() and not held:
        base = json.loads(config.read_text()).get("base_model_name_or_path")
        raise ValueError(
            "The 'model_name' parameter of HFEmbeddingTransformer must name a model. "
            f"Got {source.name!r} instead, which holds an adapter and no model. Give "
            f"it as 'adapter', and the model that it was trained on, {base!r}, as "
            "'model_name'."
        ) from error
    if (
        not (source.path / source.config_name).exists()
        and source.model_kwargs.get("config") is None
    ):
        ggufs = sorted(path.name for path in source.path.glob("*.gguf"))
        hint = f": give the path of a file in it, such as {ggufs[0]!r}" if ggufs else ""
        raise ValueError(
            "The 'model_name' parameter of HFEmbeddingTransformer must name a folder "
            f"with a config.json. Got {str(source.path)!r} instead, which has none"
            f"{hint}."
        ) from None


def identify_model(source: ModelSource, store: Path) -> str:
    """Return a name of a model that no other model has.

    The name is the hub's id and commit, or the last name in the local path and a digest
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
    state = file_state(source)
    return _DIGESTS.get(state, lambda: digest_files(path.resolve(), None))


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
