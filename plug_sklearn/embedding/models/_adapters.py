"""Apply a PEFT adapter to the part of a model that is read.

The weights of an adapter are named after the modules of the model that it was trained
on: a causal model, a classifier, or one that sees images as well. The names tell which.
Such a model is built without weights, the modules that are read are put into it, and
PEFT applies the adapter to all of it.
"""

import re
from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from plug_sklearn.embedding.models._adapted_models import (
    PREFIX,
    SharedModules,
    build_empty,
    build_trained_models,
    fit_sizes,
    match_modules,
    name_parameter,
)
from plug_sklearn.embedding.models._adapter_files import import_peft, read_adapter
from plug_sklearn.embedding.models._sources import ModelSource

#: Parameters that all adapted modules share, and that are stored once.
_SHARED = ("vblora_vector_bank", "tinylora_v", "unilora_theta_d")
#: What tells PEFT that a model's weights are quantized.
_QUANTIZED = ("is_loaded_in_4bit", "is_loaded_in_8bit", "quantization_method")

#: Towers beside a language model, which transformers 4.52 moved into "model".
_TOWERS = {r"^(?=(?:vision|visual|audio|multi_modal)\w*\.)": "model."}
#: How names have changed: first as they are, then those of wrappers of language models
#: before transformers 4.52, of a text model out of its wrapper, and of one into it.
_RENAMINGS: tuple[Mapping[str, str], ...] = (
    {},
    {
        r"^language_model\.model\.": "model.language_model.",
        r"^language_model\.lm_head": "lm_head",
        **_TOWERS,
    },
    {r"^(?:model\.)?language_model\.(?:model\.)?": "model."},
    {r"^model\.(?=layers\.|embed_tokens\.)": "model.language_model.", **_TOWERS},
)


def apply_adapter(model: PreTrainedModel, adapter: ModelSource) -> frozenset[str]:
    """Apply an adapter to a model, in place.

    ``model`` is as ``AutoModel`` builds it. Returns the names of its weights that the
    adapter replaces. Raises an ImportError if peft is not installed; and a ValueError
    if the adapter does not fit the model, puts vectors before each text, or cannot be
    merged, or if the weights of the model are offloaded.
    """
    import_peft()
    if any(weight.is_meta for weight in model.parameters()):
        raise ValueError(
            "The 'adapter' parameter of HFEmbeddingTransformer must be None for a "
            f"model whose weights are offloaded. Got {adapter.name!r} instead. Merge "
            "it into the model, save the result, and give its path as 'model_name'."
        )
    config, stored = read_adapter(adapter)
    fit = _find_fit(model, config, stored, adapter)
    marker = _find_marker(config)
    saved = {name_parameter(key) for key in fit.weights if marker not in key}
    _resize_embeddings(model, fit.trained, saved)
    for mark in _QUANTIZED:
        if hasattr(model, mark):
            setattr(fit.trained, mark, getattr(model, mark))
    fit.shared.move_into(model, fit.trained)
    _fill_heads(fit.trained, set(model.modules()))
    adapted, _ = _load(fit.trained, config, fit.weights)
    # Merging into quantized weights would round the adapter away.
    if getattr(model.config, "quantization_config", None) is None:
        # Merging ends what ties the head.
        fit.trained.config.tie_word_embeddings = False
        _merge(adapted, config.peft_type.value, adapter.name)
    fit.shared.move_back(model, fit.trained)
    return frozenset(name for each in saved if (name := fit.shared.rename(each)))


@dataclass(frozen=True)
class _Fit:
    """How an adapter fits a model.

    ``trained`` is a model of the class that the adapter was trained on, without
    weights. ``weights`` are the adapter's, as this release of transformers names them,
    and ``shared`` the modules that both models have.
    """

    trained: PreTrainedModel
    weights: dict[str, Tensor]
    shared: SharedModules


def _find_fit(
    model: PreTrainedModel,
    config: Any,  # noqa: ANN401 - of peft, untyped
    stored: Mapping[str, Tensor],
    adapter: ModelSource,
) -> _Fit:
    """Find the class that an adapter was trained on, by the names of its weights."""
    best = list(stored)
    for renaming in _RENAMINGS:
        weights = {_rename(key, renaming): tensor for key, tensor in stored.items()}
        if renaming and list(weights) == list(stored):
            continue
        for empty in build_trained_models(
            model.config,
            task=config.task_type,
            class_name=(config.auto_mapping or {}).get("base_model_class"),
            trust_remote_code=adapter.trust_remote_code,
        ):
            trained = fit_sizes(empty, weights)
            shared = match_modules(model, trained)
            unmatched = _find_unmatched(trained, config, weights)
            if shared is not None and not unmatched:
                # That one has been adapted already.
                trained = build_empty(type(trained), trained.config)
                return _Fit(trained, weights, shared)
            best = min(best, unmatched or best, key=len)
    raise ValueError(
        "The 'adapter' parameter of HFEmbeddingTransformer must name an adapter of "
        f"{type(model).__name__}, or of a model around it. Got {adapter.name!r} "
        f"instead: {len(best)} of its {len(stored)} weights do not fit; the first is "
        f"{best[0]!r}."
    )


def _find_marker(config: Any) -> str:  # noqa: ANN401 - of peft, untyped
    """Find what the names of all parameters that an adapter adds contain."""
    prefixes: dict[object, str] = import_peft().mapping.PEFT_TYPE_TO_PREFIX_MAPPING
    return prefixes.get(config.peft_type) or f"{config.peft_type.value.lower()}_"


def _rename(key: str, renaming: Mapping[str, str]) -> str:
    prefix = PREFIX if key.startswith(PREFIX) else ""
    name = key.removeprefix(prefix)
    for pattern, replacement in renaming.items():
        name, n_changes = re.subn(pattern, replacement, name)
        if n_changes:
            break
    return prefix + name


def _find_unmatched(
    trained: PreTrainedModel,
    config: Any,  # noqa: ANN401 - of peft, untyped
    weights: Mapping[str, Tensor],
) -> list[str]:
    """List the weights of an adapter that a model has no place for, or that lack."""
    if hasattr(config, "init_lora_weights"):
        # Some initial values are computed from weights, which are not here.
        config = deepcopy(config)
        config.init_lora_weights = False
    try:
        return _load(trained, config, weights, without_weights=True)[1]
    # What peft raises where modules are not there, or have other shapes.
    except (AttributeError, KeyError, RuntimeError, ValueError):
        return list(weights)


def _load(
    trained: PreTrainedModel,
    config: Any,  # noqa: ANN401 - of peft, untyped
    weights: Mapping[str, Tensor],
    *,
    without_weights: bool = False,
) -> tuple[Any, list[str]]:
    """Apply an adapter; gives the adapted model and the weights without a place."""
    peft: ModuleType = import_peft()
    if not getattr(config, "ensure_weight_tying", False):
        # Heads are not read: peft need not warn of those tied to the embeddings.
        trained.config.tie_word_embeddings = False
    kind = peft.MODEL_TYPE_TO_PEFT_MODEL_MAPPING.get(config.task_type, peft.PeftModel)
    adapted = kind(trained, deepcopy(config), low_cpu_mem_usage=without_weights)
    result = peft.set_peft_model_state_dict(
        adapted, dict(weights), low_cpu_mem_usage=without_weights
    )
    marker = _find_marker(config)
    lacking = [
        key
        for key in result.missing_keys
        if marker in key and not any(name in key for name in _SHARED)
    ]
    unmatched = [*result.unexpected_keys, *lacking]
    return adapted, [key.replace(".default", "") for key in unmatched]


def _resize_embeddings(
    model: PreTrainedModel, trained: PreTrainedModel, saved: Collection[str]
) -> None:
    """Make room for embeddings that the adapter has saved for more tokens."""
    embeddings = trained.get_input_embeddings()
    name = next(
        name for name, module in trained.named_modules() if module is embeddings
    )
    n_tokens = len(next(embeddings.parameters()))
    own = next(model.get_input_embeddings().parameters())
    if f"{name}.weight" in saved and n_tokens != len(own):
        model.resize_token_embeddings(n_tokens, mean_resizing=False)


def _fill_heads(trained: PreTrainedModel, read: Collection[nn.Module]) -> None:
    """Allocate what is adapted with the rest and never runs, such as heads."""
    for module in trained.modules():
        if module not in read:
            module.to_empty(device="cpu", recurse=False)


def _merge(adapted: Any, peft_type: str, name: str) -> None:  # noqa: ANN401 - of peft
    try:
        adapted.merge_and_unload()
    except (AttributeError, NotImplementedError, ValueError) as error:
        raise ValueError(
            "The 'adapter' parameter of HFEmbeddingTransformer must name an adapter "
            f"that can be merged into the weights. Got {name!r} instead, of type "
            f"{peft_type}: {error}"
        ) from error
