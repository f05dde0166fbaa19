"""Load, keep and share Hugging Face models, their tokenizers and configurations."""

import os
import re
import threading
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import joblib
import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file

from plug_sklearn._extras import require_extra
from plug_sklearn._forks import make_lock
from plug_sklearn.embedding.anatomy._families import Stack
from plug_sklearn.embedding.anatomy._modules import find_input_device
from plug_sklearn.embedding.models._absence import explain_absence
from plug_sklearn.embedding.models._adapter_files import (
    ADAPTER_CONFIG_NAME,
    find_adapter,
)
from plug_sklearn.embedding.models._adapters import apply_adapter
from plug_sklearn.embedding.models._bars import hide_loading_bars
from plug_sklearn.embedding.models._gguf import convert_gguf
from plug_sklearn.embedding.models._missing import list_missing
from plug_sklearn.embedding.models._shelf import Shelf
from plug_sklearn.embedding.models._tekken import complete_tokenizer

#: Models kept at once. Two, so that a union of two embedders does not load in turns.
MODELS_KEPT = 2

#: What of a model's folder matters: not a README, nor a training log.
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
#: Those that change nothing in a configuration.
_NO_CHANGES = LOCATING | frozenset(
    {"config", "dtype", "output_loading_info", "quantization_config", "torch_dtype"}
)


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from, and everything that decides which weights it has.

    Attributes
    ----------
    name : str
        Hub id, local folder, or path of a GGUF file.
    revision : str or None
        Branch, tag or commit of the hub's repository.
    trust_remote_code : bool
        Whether code that the repository ships may run.
    commit : str or None
        What ``revision`` was when the model was last seen, for messages.
    model_kwargs : mapping
        More arguments for ``from_pretrained``.
    parameter : {"model_name", "adapter"}
        What names the source: a model or an adapter.
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
        """Give what every ``from_pretrained`` needs to find this source."""
        arguments: dict[str, Any] = {"trust_remote_code": self.trust_remote_code}
        if self.revision is not None:
            arguments["revision"] = self.revision
        arguments |= {k: v for k, v in self.model_kwargs.items() if k in LOCATING}
        path = Path(self.name)
        if path.suffix.lower() == ".gguf":
            if not path.is_file():
                raise FileNotFoundError(
                    "The 'model_name' parameter of HFEmbeddingTransformer must name an "
                    f"existing GGUF file. Got {self.name!r} instead."
                )
            folder = convert_gguf(path)
            if folder is not None:
                return str(folder), arguments
            return str(path.parent), {**arguments, "gguf_file": path.name}
        return self.name, arguments

    def as_adapter(self, name: str) -> "ModelSource":
        """Give the source of an adapter, which is fetched as this model is."""
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
        """Give what ``cached_file`` needs to find one of the source's files."""
        _, arguments = self.loading_arguments()
        for name in ("trust_remote_code", "code_revision", "gguf_file"):
            arguments.pop(name, None)
        # The file that is looked up was fetched with the model.
        return {**arguments, "force_download": False}


@dataclass(frozen=True)
class WeightOptions:
    """How a source's weights are loaded.

    Attributes
    ----------
    device : torch.device
        Where the model runs.
    dtype : torch.dtype
        Type of its weights and states.
    attn_implementation, quantization, adapter, model_kwargs
        As in :class:`~plug_sklearn.HFEmbeddingTransformer`.
    """

    device: torch.device
    dtype: torch.dtype
    attn_implementation: str | None = None
    quantization: str | None = None
    adapter: str | None = None
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class LoadedModel:
    """A model in memory. ``lock`` is held by whoever has hooks on it.

    ``missing`` names the weights that its files lack, and ``unused`` what the files
    hold that it has no place for.
    """

    model: PreTrainedModel
    lock: threading.RLock = field(default_factory=make_lock)
    # How each stack is read, found on first use.
    trials: dict[str | None, Any] = field(default_factory=dict)
    missing: frozenset[str] = frozenset()
    unused: frozenset[str] = frozenset()
    # Stacks none of whose weights are missing.
    complete: set[Stack | None] = field(default_factory=set)

    @property
    def input_device(self) -> torch.device:
        """Where token ids go: a model spread over devices has several."""
        return find_input_device(self.model)


_CONFIGS = Shelf(size=16)
_TOKENIZERS = Shelf(size=16)
_MODELS = Shelf(size=MODELS_KEPT)


def release_models() -> None:
    """Free the language models that this process keeps for reuse.

    The next ``transform`` that needs one loads it again.

    Examples
    --------
    >>> from plug_sklearn.embedding import release_models
    >>> release_models()
    """
    with _MODELS.lock:
        _MODELS.kept.clear()


def load_config(source: ModelSource) -> PreTrainedConfig:
    """Load a model's configuration, and nothing else."""

    def load() -> PreTrainedConfig:
        if source.model_kwargs.get("gguf_file") is not None:
            require_extra("gguf", "A 'gguf_file' in the 'model_kwargs' parameter")
        name, arguments = source.loading_arguments()
        given = source.model_kwargs.get("config")
        if isinstance(given, PreTrainedConfig):
            return given
        # As from_pretrained of a model does: what the configuration has can be changed.
        changes = {k: v for k, v in source.model_kwargs.items() if k not in _NO_CHANGES}
        arguments |= {**changes, "return_unused_kwargs": True}
        with explain_absence(source):
            try:
                config: PreTrainedConfig
                config, _ = transformers.AutoConfig.from_pretrained(
                    given or name, **arguments
                )
            except ValueError:
                # Said also of a model that is not here and may not be fetched.
                find_commit(source)
                raise
        return config

    return _CONFIGS.take(tell_state(source), load)


def load_tokenizer(source: ModelSource) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer, and nothing else."""

    def load() -> PreTrainedTokenizerBase:
        name, arguments = source.loading_arguments()
        # The package mistral-common, where it is installed, would tokenize otherwise.
        arguments["mistral_format"] = False
        with explain_absence(source):
            tokenizer: PreTrainedTokenizerBase = (
                transformers.AutoTokenizer.from_pretrained(name, **arguments)
            )
        complete_tokenizer(tokenizer)
        return tokenizer

    return _TOKENIZERS.take(tell_state(source), load)


def load_model(source: ModelSource, options: WeightOptions) -> LoadedModel:
    """Load a model without its head, in evaluation mode, or give the one kept."""
    adapter = (
        None if options.adapter is None else tell_state(ModelSource(options.adapter))
    )
    key = (tell_state(source), adapter, joblib.hash(options))
    return _MODELS.take(key, lambda: _load_backbone(source, options))


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

    None for a local folder or file.
    """
    if Path(source.name).exists():
        return None
    with explain_absence(source):
        path = cached_file(
            source.name, source.config_name, **source.fetching_arguments()
        )
    found = re.search(r"snapshots[/\\]([0-9a-f]{40})[/\\]", str(path))
    return found.group(1) if found else None


def tell_state(source: ModelSource) -> Hashable:
    """Tell one state of a source from the next: a local file can be written again."""
    if not source.path.exists():
        return source
    stats = tuple(
        (file, stat.st_mtime_ns, stat.st_size)
        for file, stat in list_model_files(source.path)
    )
    return (source, stats)


def _load_backbone(source: ModelSource, options: WeightOptions) -> LoadedModel:
    name, arguments = source.loading_arguments()
    if "gguf_file" not in arguments:
        # Other formats are pickles; a user who trusts theirs says so in model_kwargs.
        arguments["use_safetensors"] = True
    if options.attn_implementation is not None:
        arguments["attn_implementation"] = options.attn_implementation
    if options.quantization is not None:
        require_extra(
            "quantization", "The 'quantization' parameter of HFEmbeddingTransformer"
        )
        arguments["quantization_config"] = _quantize(options)
        arguments["device_map"] = {"": options.device}
    arguments |= {"dtype": options.dtype, **options.model_kwargs}
    if options.model_kwargs.get("device_map") is not None:
        require_extra("multi-gpu", "A 'device_map' in the 'model_kwargs' parameter")
    adapter = find_adapter(source, options.adapter)
    # transformers would apply one of the folder's own, only where peft is installed.
    arguments["adapter_kwargs"] = {"subfolder": "none", "local_files_only": True}
    # Weights that a checkpoint lacks, such as an unused pooler, are drawn at random;
    # before a stack is read, those that it needs are looked for among them.
    arguments |= {"ignore_mismatched_sizes": True, "output_loading_info": True}
    with torch.random.fork_rng(devices=[]):
        with explain_absence(source), hide_loading_bars():
            model, report = transformers.AutoModel.from_pretrained(name, **arguments)
        missing = list_missing(report)
        if adapter is not None:
            missing -= apply_adapter(model, adapter)
    if "device_map" not in arguments:
        model = model.to(options.device)
    for module in model.modules():
        # An MLP run in chunks would put out its contribution in pieces.
        if hasattr(module, "chunk_size_feed_forward"):
            module.chunk_size_feed_forward = 0
    # A cache of keys and values would cost memory that no pass here reads again.
    for config in (model.config, model.config.get_text_config()):
        config.use_cache = False
    backbone: PreTrainedModel = model.eval().requires_grad_(False)
    return LoadedModel(
        backbone, missing=missing, unused=frozenset(report["unexpected_keys"])
    )


def _quantize(options: WeightOptions) -> transformers.BitsAndBytesConfig:
    settings: dict[str, Any] = {"load_in_8bit": True}
    if options.quantization == "4bit":
        settings = {"load_in_4bit": True, "bnb_4bit_compute_dtype": options.dtype}
    return transformers.BitsAndBytesConfig(**settings)  # type: ignore[no-untyped-call]  # transformers leaves it untyped
