"""Load, keep and share Hugging Face models, their tokenizers and configurations."""

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import joblib
import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file

from plug_sklearn._extras import require_extra
from plug_sklearn._forks import make_lock
from plug_sklearn.embedding.models._absence import explain_absence
from plug_sklearn.embedding.models._adapter_weights import require_safetensors
from plug_sklearn.embedding.models._bars import hide_loading_bars
from plug_sklearn.embedding.models._gguf import convert_gguf

#: Models kept at once. Two, so that a union of two embedders does not load in turns.
MODELS_KEPT = 2

#: What of a model's folder matters: not a README, nor a training log.
MODEL_SUFFIXES = frozenset(
    {".bin", ".gguf", ".jinja", ".json", ".model", ".py", ".safetensors", ".txt"}
)

_Loaded = TypeVar("_Loaded")


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
    """

    name: str
    revision: str | None = None
    trust_remote_code: bool = False
    commit: str | None = field(default=None, compare=False, repr=False)

    def loading_arguments(self) -> tuple[str, dict[str, Any]]:
        """Give what every ``from_pretrained`` needs to find this source."""
        arguments: dict[str, Any] = {"trust_remote_code": self.trust_remote_code}
        if self.revision is not None:
            arguments["revision"] = self.revision
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
    """A model in memory. ``lock`` is held by whoever has hooks on it."""

    model: PreTrainedModel
    lock: threading.RLock = field(default_factory=make_lock)
    # How each stack is read, found on first use.
    trials: dict[str | None, Any] = field(default_factory=dict)

    @property
    def input_device(self) -> torch.device:
        """Where token ids go: a model spread over devices has several."""
        return torch.device(self.model.get_input_embeddings().weight.device)  # type: ignore[arg-type]  # Module attributes are a union to mypy


class Shelf:
    """Keeps the last few things loaded, each loaded once however many ask."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.kept: OrderedDict[Hashable, Any] = OrderedDict()
        self.lock = make_lock()

    def take(self, key: Hashable, load: Callable[[], _Loaded]) -> _Loaded:
        # Loading holds the lock: two threads that want one model load it once.
        with self.lock:
            if key not in self.kept:
                while len(self.kept) >= self.size:
                    self.kept.popitem(last=False)
                self.kept[key] = load()
            self.kept.move_to_end(key)
            loaded: _Loaded = self.kept[key]
            return loaded


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
        name, arguments = source.loading_arguments()
        with explain_absence(source):
            config: PreTrainedConfig = transformers.AutoConfig.from_pretrained(
                name, **arguments
            )
        return config

    return _CONFIGS.take(tell_state(source), load)


def load_tokenizer(source: ModelSource) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer, and nothing else."""

    def load() -> PreTrainedTokenizerBase:
        name, arguments = source.loading_arguments()
        with explain_absence(source):
            tokenizer: PreTrainedTokenizerBase = (
                transformers.AutoTokenizer.from_pretrained(name, **arguments)
            )
        return tokenizer

    return _TOKENIZERS.take(tell_state(source), load)


def load_model(source: ModelSource, options: WeightOptions) -> LoadedModel:
    """Load a model without its head, in evaluation mode, or give the one kept."""
    adapter = (
        None if options.adapter is None else tell_state(ModelSource(options.adapter))
    )
    key = (tell_state(source), adapter, joblib.hash(options))
    return _MODELS.take(key, lambda: LoadedModel(_load_backbone(source, options)))


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
        path = cached_file(source.name, "config.json", revision=source.revision)
    found = re.search(r"snapshots[/\\]([0-9a-f]{40})[/\\]", str(path))
    return found.group(1) if found else None


def tell_state(source: ModelSource) -> Hashable:
    """Tell one state of a source from the next: a local file can be written again."""
    path = Path(source.name)
    if not path.exists():
        return source
    stats = tuple(
        (file, stat.st_mtime_ns, stat.st_size) for file, stat in list_model_files(path)
    )
    return (source, stats)


def _load_backbone(source: ModelSource, options: WeightOptions) -> PreTrainedModel:
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
    # Weights that a checkpoint lacks, such as an unused pooler, are drawn at random.
    with (
        torch.random.fork_rng(devices=[]),
        explain_absence(source),
        hide_loading_bars(),
    ):
        if options.adapter is None:
            model = transformers.AutoModel.from_pretrained(name, **arguments)
        else:
            model = _load_adapted(name, arguments, options, options.adapter)
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
    return backbone


def _quantize(options: WeightOptions) -> transformers.BitsAndBytesConfig:
    settings: dict[str, Any] = {"load_in_8bit": True}
    if options.quantization == "4bit":
        settings = {"load_in_4bit": True, "bnb_4bit_compute_dtype": options.dtype}
    return transformers.BitsAndBytesConfig(**settings)  # type: ignore[no-untyped-call]  # transformers leaves it untyped


#: The class that an adapter was trained on, by the task its configuration names: the
#: adapter's weights are named after that class's modules.
_ADAPTED_CLASSES = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
}


def _load_adapted(
    name: str, arguments: dict[str, Any], options: WeightOptions, adapter: str
) -> PreTrainedModel:
    require_extra("adapters", "The 'adapter' parameter of HFEmbeddingTransformer")
    import peft

    # As for the model's own weights: a user may ask for pickles in model_kwargs.
    if arguments.get("use_safetensors", True):
        require_safetensors(adapter)
    adapter_config = peft.PeftConfig.from_pretrained(adapter)
    class_name = _ADAPTED_CLASSES.get(str(adapter_config.task_type), "AutoModel")
    whole = getattr(transformers, class_name).from_pretrained(name, **arguments)
    adapted = peft.PeftModel.from_pretrained(whole, adapter)
    if options.quantization is None:
        base = adapted.merge_and_unload()
    else:
        # Merging into quantized weights would round the adapter away.
        base = adapted.get_base_model()
    backbone: PreTrainedModel = base.base_model
    return backbone
