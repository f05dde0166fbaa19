"""Where a model or an adapter comes from, and whether its files have changed."""

import json
import os
import re
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from transformers.utils.hub import cached_file

from plug_sklearn._hub_access import is_hub_reachable
from plug_sklearn.embedding.models._gguf import convert_gguf
from plug_sklearn.embedding.models._registered import find_registered

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
