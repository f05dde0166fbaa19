"""Load Hugging Face models, their tokenizers and configurations, and keep them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import joblib
import torch
import transformers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from plug_sklearn._packages import require_extra
from plug_sklearn.embedding.models._adapter_files import find_adapter
from plug_sklearn.embedding.models._adapters import apply_adapter
from plug_sklearn.embedding.models._registered import find_registered, set_for_reading
from plug_sklearn.embedding.models._sharing import LoadedModel, LRUCache
from plug_sklearn.embedding.models._sources import (
    LOCATING,
    ModelSource,
    explain_missing_files,
    file_state,
    find_commit,
    list_model_files,
)

#: Models kept at once. Two, so that a union of two embedders does not load in turns.
MODELS_KEPT = 2
#: Arguments of ``from_pretrained`` that change nothing in a configuration.
_NO_CHANGES = LOCATING | frozenset(
    {"config", "dtype", "output_loading_info", "quantization_config", "torch_dtype"}
)
#: What the files of tokenizers are called.
_TOKENIZER_FILES = ("*token*", "vocab*", "*.model", "spiece*", "tekken.json")
# Mistral's tokenizer files have no names for the special tokens.
_TEKKEN_TOKENS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
}


@dataclass(frozen=True)
class WeightOptions:
    """How a source's weights are loaded.

    ``dtype`` is that of the weights and states. ``attn_implementation``,
    ``quantization``, ``adapter`` and ``model_kwargs`` are as in
    :class:`~plug_sklearn.HFEmbeddingTransformer`.
    """

    device: torch.device
    dtype: torch.dtype
    attn_implementation: str | None = None
    quantization: str | None = None
    adapter: str | None = None
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)


_CONFIGS = LRUCache(size=16)
_TOKENIZERS = LRUCache(size=16)
_MODELS = LRUCache(size=MODELS_KEPT)


def release_models() -> None:
    """Free the language models that this process keeps for reuse.

    The next ``transform`` that needs one loads it again.

    Examples
    --------
    >>> from plug_sklearn.embedding import release_models
    >>> release_models()
    """
    with _MODELS.lock:
        _MODELS.items.clear()


def load_config(source: ModelSource) -> PreTrainedConfig:
    """Load a model's configuration, and nothing else."""
    registered = find_registered(source.name)
    if registered is not None:
        return registered.model.config

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
        with explain_missing_files(source):
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

    return _CONFIGS.get(file_state(source), load)


def load_tokenizer(source: ModelSource) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer, and nothing else."""
    registered = find_registered(source.name)
    if registered is not None:
        return registered.tokenizer

    def load() -> PreTrainedTokenizerBase:
        name, arguments = source.loading_arguments()
        # The package mistral-common, where it is installed, would tokenize otherwise.
        arguments["mistral_format"] = False
        with explain_missing_files(source), _explain_missing_tokenizer(source):
            tokenizer: PreTrainedTokenizerBase = (
                transformers.AutoTokenizer.from_pretrained(name, **arguments)
            )
        _complete_tekken_tokenizer(tokenizer)
        return tokenizer

    return _TOKENIZERS.get(file_state(source), load)


@contextmanager
def _explain_missing_tokenizer(source: ModelSource) -> Iterator[None]:
    """Say that a folder holds no tokenizer, if none of its files can be one's."""
    try:
        yield
    except (OSError, ValueError) as error:
        held = any(any(source.path.glob(name)) for name in _TOKENIZER_FILES)
        if held or not source.path.is_dir() or "gguf_file" in source.model_kwargs:
            raise
        raise ValueError(
            "The 'model_name' parameter of HFEmbeddingTransformer must name a folder "
            f"that holds a tokenizer too. Got {str(source.path)!r} instead, which has "
            "none: save it there with tokenizer.save_pretrained."
        ) from error


def load_model(source: ModelSource, options: WeightOptions) -> LoadedModel:
    """Load a model without its head, in evaluation mode, or give the one kept.

    A registered model is given as it is: it is to be read within ``reading``.
    """
    registered = find_registered(source.name)
    if registered is not None:
        if registered.loaded is None:
            registered.loaded = LoadedModel(
                registered.model, reading=registered.reading
            )
        return registered.loaded
    adapter = (
        None if options.adapter is None else file_state(ModelSource(options.adapter))
    )
    key = (file_state(source), adapter, joblib.hash(options))
    return _MODELS.get(key, lambda: _load_backbone(source, options))


def _complete_tekken_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Name the special tokens of a tokenizer that was made from ``tekken.json``.

    Mistral's models expect ``<s>`` at the beginning of every text. Other tokenizers are
    left as they are.
    """
    file = getattr(tokenizer, "vocab_file", None)
    if Path(str(file)).name != "tekken.json" or tokenizer.bos_token is not None:
        return
    vocabulary = tokenizer.get_vocab()
    for name, text in _TEKKEN_TOKENS.items():
        if text in vocabulary:
            setattr(tokenizer, name, text)
    begin = tokenizer.bos_token
    if begin is not None:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{begin} $A", special_tokens=[(begin, vocabulary[begin])]
        )


def _load_backbone(source: ModelSource, options: WeightOptions) -> LoadedModel:
    name, arguments = choose_arguments(source, options)
    adapter = find_adapter(source, options.adapter)
    # Before the files are read: they may change at any time.
    identity = _identify_loading(source, options, adapter)
    with torch.random.fork_rng(devices=[]):
        with explain_missing_files(source), hide_loading_bars():
            model, report = transformers.AutoModel.from_pretrained(name, **arguments)
        # These were drawn at random: the files lack them, or hold them in other shapes.
        missing = frozenset(report["missing_keys"])
        missing |= {name for name, *_ in report["mismatched_keys"]}
        if adapter is not None:
            missing -= apply_adapter(model, adapter)
    if "device_map" not in arguments:
        model = model.to(options.device)
    set_for_reading(model)
    backbone: PreTrainedModel = model.eval().requires_grad_(False)
    return LoadedModel(
        backbone,
        missing=missing,
        unused=frozenset(report["unexpected_keys"]),
        identity=identity,
    )


def _identify_loading(
    source: ModelSource, options: WeightOptions, adapter: ModelSource | None
) -> str | None:
    """Identify a model by its files and how they are loaded, without reading them."""
    if source.trust_remote_code:
        # A repository may run the code of another one.
        return None
    known: list[object] = []
    for one in (source, adapter):
        if one is None:
            known.append(None)
            continue
        try:
            commit = find_commit(one)
        except OSError:
            # Loading it says what is wrong.
            return None
        files = list_model_files(one.path.resolve()) if one.path.exists() else []
        if commit is None and not files:
            return None
        states = [(name, stat.st_mtime_ns, stat.st_size) for name, stat in files]
        known.append((one.name, commit, states))
    # Any card of a kind computes the same.
    device = torch.device(options.device.type)
    return repr((known, joblib.hash(replace(options, device=device))))


def choose_arguments(
    source: ModelSource, options: WeightOptions
) -> tuple[str, dict[str, Any]]:
    """Choose what ``from_pretrained`` is called with: a name, and keywords."""
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
    # transformers would apply one of the folder's own, only where peft is installed.
    arguments["adapter_kwargs"] = {"subfolder": "none", "local_files_only": True}
    # Weights that a checkpoint lacks, such as an unused pooler, are drawn at random;
    # before a stack is read, those that it needs are looked for among them.
    arguments |= {"ignore_mismatched_sizes": True, "output_loading_info": True}
    return name, arguments


def _quantize(options: WeightOptions) -> transformers.BitsAndBytesConfig:
    settings: dict[str, Any] = {"load_in_8bit": True}
    if options.quantization == "4bit":
        settings = {"load_in_4bit": True, "bnb_4bit_compute_dtype": options.dtype}
    return transformers.BitsAndBytesConfig(**settings)  # type: ignore[no-untyped-call]  # transformers leaves it untyped


@contextmanager
def hide_loading_bars() -> Iterator[None]:
    """Hide the bars that transformers shows while it loads weights.

    The bars of downloads are shown by the hub's client, and stay.
    """

    def hide(
        make: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:  # noqa: ANN401 - tqdm, or what stands in for it
        return make(*args, **{**kwargs, "disable": True})

    previous = logging.set_tqdm_hook(hide)
    try:
        yield
    finally:
        logging.set_tqdm_hook(previous)
