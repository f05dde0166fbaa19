"""The model that writes, built around the backbone that is read: one copy of weights.

The head is small, or is the table of embeddings itself. The causal model is built
without weights, the backbone is put into it, and only the head's weights are read from
the files. Where these have other names, the whole is loaded and its backbone dropped.
"""

import json
from copy import deepcopy
from typing import Any

import torch
import transformers
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils.hub import cached_file

from plug_sklearn.embedding.models._adapter_files import find_adapter, read_adapter
from plug_sklearn.embedding.models._loading import (
    WeightOptions,
    choose_arguments,
    hide_loading_bars,
)
from plug_sklearn.embedding.models._registered import find_registered
from plug_sklearn.embedding.models._sharing import LoadedModel
from plug_sklearn.embedding.models._sources import ModelSource, explain_missing_files

_INDEX, _WEIGHTS = "model.safetensors.index.json", "model.safetensors"


class NoHeadError(ValueError):
    """A model that cannot write; the message says why."""


def load_causal(
    source: ModelSource, options: WeightOptions, loaded: LoadedModel
) -> PreTrainedModel:
    """Return the causal model around a backbone, made once for each backbone.

    ``source`` and ``options`` are those that the backbone was loaded with; its weights
    are shared. Raises a NoHeadError if the model has no language-model head, or an
    adapter changes it.
    """
    with loaded.lock:
        if loaded.causal is None:
            registered = find_registered(source.name)
            if registered is not None:
                loaded.causal = _require_writer(registered.whole, source.name)
            else:
                loaded.causal = _build_causal(source, options, loaded.model)
        causal: PreTrainedModel = loaded.causal
        return causal


def _require_writer(model: PreTrainedModel, name: str) -> PreTrainedModel:
    head: object = model.get_output_embeddings()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    if model.config.is_encoder_decoder or head is None or not model.can_generate():
        raise NoHeadError(
            f"{name!r} is a {type(model).__name__}, which has no head that predicts "
            "the next token"
        )
    return model


def _build_causal(
    source: ModelSource, options: WeightOptions, backbone: PreTrainedModel
) -> PreTrainedModel:
    """Build the causal model of a backbone that was loaded from files."""
    config = deepcopy(backbone.config)
    for each in (config, config.get_text_config()):
        each.use_cache = True
    auto: Any = transformers.AutoModelForCausalLM
    if config.is_encoder_decoder or (
        type(config) not in auto._model_mapping and not hasattr(config, "auto_map")
    ):
        raise NoHeadError(
            f"{source.name!r} is of type {config.model_type!r}, which has no head that "
            "predicts the next token"
        )
    with torch.device("meta"):
        causal: PreTrainedModel = auto.from_config(
            config, trust_remote_code=source.trust_remote_code, dtype=options.dtype
        )
    if type(causal.base_model) is not type(backbone):
        raise NoHeadError(
            f"{source.name!r} writes with a {type(causal).__name__}, which is not "
            f"built around the {type(backbone).__name__} that is read"
        )
    _refuse_adapted_head(source, options, causal)
    # The tying of the whole is that of the files; an adapter's merge ended it.
    _graft(causal, backbone)
    if not _fill_head(causal, source):
        causal = _load_whole(source, options)
        _graft(causal, backbone)
    _require_writer(causal, source.name)
    causal.generation_config = _load_generation_config(source, config)
    causal.requires_grad_(False)
    causal.train(False)
    return causal


def _graft(causal: PreTrainedModel, backbone: PreTrainedModel) -> None:
    """Put the backbone into the causal model, and tie the head where it is tied."""
    setattr(causal, causal.base_model_prefix, backbone)
    causal.tie_weights()


def _fill_head(causal: PreTrainedModel, source: ModelSource) -> bool:
    """Read the weights of the head; False where the files do not hold them by name."""
    if any(buffer.is_meta for buffer in causal.buffers()):
        return False
    absent = [
        (module, own, f"{path}.{own}".lstrip("."))
        for path, module in causal.named_modules()
        for own, weight in module.named_parameters(
            recurse=False, remove_duplicate=False
        )
        if weight.is_meta
    ]
    files = _find_files(source, [name for *_, name in absent])
    if files is None:
        return False
    reference = causal.get_input_embeddings().weight
    assert isinstance(reference, Tensor)
    for module, own, name in absent:
        with safe_open(files[name], framework="pt") as stored:
            weight = stored.get_tensor(name).to(reference.device, reference.dtype)
        if weight.shape != getattr(module, own).shape:
            return False
        setattr(module, own, nn.Parameter(weight, requires_grad=False))
    return True


def _find_files(source: ModelSource, names: list[str]) -> dict[str, str] | None:
    """Find the file that holds each weight; None if one is in none."""
    if not names:
        return {}
    name, arguments = source.loading_arguments()
    if "gguf_file" in arguments:
        return None
    fetching = source.fetching_arguments()
    quiet = {"_raise_exceptions_for_missing_entries": False}
    index = cached_file(name, _INDEX, **fetching, **quiet)
    if index is not None:
        with open(index, encoding="utf-8") as stream:
            shards: dict[str, str] = json.load(stream)["weight_map"]
    elif (whole := cached_file(name, _WEIGHTS, **fetching, **quiet)) is not None:
        with safe_open(whole, framework="pt") as stored:
            shards = dict.fromkeys(stored.keys(), _WEIGHTS)
    else:
        return None
    if not shards.keys() >= set(names):
        return None
    return {each: str(cached_file(name, shards[each], **fetching)) for each in names}


def _load_whole(source: ModelSource, options: WeightOptions) -> PreTrainedModel:
    """Load the causal model as any user would."""
    name, arguments = choose_arguments(source, options)
    auto: Any = transformers.AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        with explain_missing_files(source), hide_loading_bars():
            causal, report = auto.from_pretrained(name, **arguments)
    prefix = f"{causal.base_model_prefix}."
    missing = [key for key in report["missing_keys"] if not key.startswith(prefix)]
    if missing:
        raise NoHeadError(
            f"the files of {source.name!r} hold no language-model head: "
            f"{sorted(missing)[0]!r} is missing"
        )
    if "device_map" not in arguments:
        causal = causal.to(options.device)
    model: PreTrainedModel = causal
    return model


def _refuse_adapted_head(
    source: ModelSource, options: WeightOptions, causal: PreTrainedModel
) -> None:
    """Refuse adapters that change the head, or the embeddings that are the head."""
    adapter = find_adapter(source, options.adapter)
    if adapter is None:
        return
    _, stored = read_adapter(adapter)
    ends = [causal.get_output_embeddings(), causal.get_input_embeddings()]  # type: ignore[no-untyped-call]  # as above
    names = {
        path.rpartition(".")[2]
        for path, module in causal.named_modules()
        if any(module is end for end in ends)
    }
    changed = sorted(key for key in stored if names & set(key.split(".")))
    if changed:
        raise NoHeadError(
            f"the adapter {adapter.name!r} changes the head or the embeddings of "
            f"{source.name!r}, and only its changes to blocks are applied: it holds "
            f"{changed[0]!r}"
        )


def _load_generation_config(
    source: ModelSource, config: PreTrainedConfig
) -> transformers.GenerationConfig:
    """Load the model's own settings of generation, or take its configuration's."""
    name, arguments = source.loading_arguments()
    arguments.pop("gguf_file", None)
    try:
        return transformers.GenerationConfig.from_pretrained(name, **arguments)
    except OSError:
        return transformers.GenerationConfig.from_model_config(config)
