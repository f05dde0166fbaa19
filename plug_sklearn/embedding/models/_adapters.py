"""Apply a PEFT adapter to the modules of a model that are read.

The weights of an adapter are named after the modules of the model that it was trained
on: a causal model, a classifier, or one that sees images as well. The names tell which.
Such a model is built without weights, the modules that are read are put into it, and
PEFT applies the adapter to all of it.
"""

from collections.abc import Collection, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from plug_sklearn.embedding.models._adapter_files import (
    RENAMINGS,
    import_peft,
    name_parameter,
    read_adapter,
    rename_weight,
)
from plug_sklearn.embedding.models._sources import ModelSource

#: Parameters that all adapted modules share, and that are stored once.
_SHARED = ("vblora_vector_bank", "tinylora_v", "unilora_theta_d")
#: What tells PEFT that a model's weights are quantized.
_QUANTIZED = ("is_loaded_in_4bit", "is_loaded_in_8bit", "quantization_method")

#: Classes by the task that an adapter's configuration names, then all others.
_TASKS = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "FEATURE_EXTRACTION": "AutoModel",
}
_OTHERS = (
    "AutoModelForImageTextToText",
    "AutoModelForMaskedLM",
    "AutoModelForMultipleChoice",
    "AutoModelForNextSentencePrediction",
    "AutoModelForPreTraining",
)


@dataclass(frozen=True)
class SharedModules:
    """The modules that a model has in common with the one an adapter was trained on.

    ``parent`` and ``trained_parent`` are the paths of the module that holds them, in
    the model and in the trained model. Their ``names`` are the same in both.
    """

    parent: str
    trained_parent: str
    names: tuple[str, ...]

    def move_into(self, model: PreTrainedModel, trained: PreTrainedModel) -> None:
        """Put the model's modules into the trained model."""
        source = model.get_submodule(self.parent)
        target = trained.get_submodule(self.trained_parent)
        for name in self.names:
            setattr(target, name, getattr(source, name))

    def move_back(self, model: PreTrainedModel, trained: PreTrainedModel) -> None:
        """Put the modules of the trained model into the model."""
        reverse = SharedModules(self.trained_parent, self.parent, self.names)
        reverse.move_into(trained, model)

    def rename(self, name: str) -> str | None:
        """Name a tensor of the trained model as in the model; None if it has none."""
        prefix = f"{self.trained_parent}." if self.trained_parent else ""
        inner = name.removeprefix(prefix)
        if not name.startswith(prefix) or inner.split(".")[0] not in self.names:
            return None
        return f"{self.parent}.{inner}" if self.parent else inner


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
    trained, weights, shared = _find_fit(model, config, stored, adapter)
    marker = _find_marker(config)
    saved = {name_parameter(key) for key in weights if marker not in key}
    _resize_embeddings(model, trained, saved)
    for mark in _QUANTIZED:
        if hasattr(model, mark):
            setattr(trained, mark, getattr(model, mark))
    shared.move_into(model, trained)
    _fill_heads(trained, set(model.modules()))
    adapted, _ = _load(trained, config, weights)
    # Merging into quantized weights would round the adapter away.
    if getattr(model.config, "quantization_config", None) is None:
        # Merging ends what ties the head.
        trained.config.tie_word_embeddings = False
        _merge(adapted, config.peft_type.value, adapter.name)
    shared.move_back(model, trained)
    return frozenset(name for each in saved if (name := shared.rename(each)))


def _find_fit(
    model: PreTrainedModel,
    config: Any,  # noqa: ANN401 - of peft, untyped
    stored: Mapping[str, Tensor],
    adapter: ModelSource,
) -> tuple[PreTrainedModel, dict[str, Tensor], SharedModules]:
    """Find the class that an adapter was trained on, by the names of its weights.

    Gives a model of that class, without weights; the adapter's weights, as this release
    of transformers names them; and the modules that both models have.
    """
    best = list(stored)
    for renaming in RENAMINGS:
        weights = {rename_weight(key, renaming): t for key, t in stored.items()}
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
                return trained, weights, shared
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


def build_trained_models(
    config: PreTrainedConfig,
    *,
    task: str | None,
    class_name: str | None,
    trust_remote_code: bool,
) -> Iterator[PreTrainedModel]:
    """Build the models that an adapter may have been trained on, likely ones first.

    ``task`` and ``class_name`` are what the adapter's configuration names. Each class
    comes once, without weights: all tensors are on the meta device.
    """
    seen: set[type] = set()
    tasks = sorted(_TASKS, key=lambda name: name != task)
    names = [class_name, *(_TASKS[name] for name in tasks), *_OTHERS]
    for name in names:
        # A text model may have been trained without the towers around it.
        for each in (config, config.get_text_config()):
            trained = _build(name, each, trust_remote_code)
            if trained is not None and type(trained) not in seen:
                seen.add(type(trained))
                yield trained


def _build(
    name: str | None, config: PreTrainedConfig, trust_remote_code: bool
) -> PreTrainedModel | None:
    model_class = getattr(transformers, str(name), None)
    if model_class is None:
        return None
    config = deepcopy(config)
    with torch.device("meta"):
        if hasattr(model_class, "from_config"):
            try:
                auto: PreTrainedModel = model_class.from_config(
                    config, trust_remote_code=trust_remote_code
                )
            except ValueError:
                # The family has no model for this task.
                return None
            return auto
        if not isinstance(config, model_class.config_class or ()):
            return None
        return build_empty(model_class, config)


def fit_sizes(
    trained: PreTrainedModel, weights: Mapping[str, Tensor]
) -> PreTrainedModel:
    """Resize heads and embeddings of a model to those that an adapter has saved.

    It is the model itself where they fit, and a new one of its class otherwise.
    """
    config = deepcopy(trained.config)
    text = config.get_text_config()
    sizes = {name: len(tensor) for name, tensor in trained.named_parameters()}
    for key, tensor in weights.items():
        name = name_parameter(key)
        if sizes.get(name, len(tensor)) == len(tensor):
            continue
        if sizes[name] == config.num_labels:
            config.num_labels = len(tensor)
        elif sizes[name] == text.vocab_size:
            text.vocab_size = len(tensor)
    if config.to_dict() == trained.config.to_dict():
        return trained
    return build_empty(type(trained), config)


def build_empty(
    model_class: type[PreTrainedModel], config: PreTrainedConfig
) -> PreTrainedModel:
    """Build a model without weights."""
    with torch.device("meta"):
        return model_class(deepcopy(config))


def match_modules(
    model: PreTrainedModel, trained: PreTrainedModel
) -> SharedModules | None:
    """Find where a model, or the text model in it, has its place in a trained model.

    Of several places, it is the one that holds the most weights.
    """
    best: SharedModules | None = None
    most = 0
    for parent, inner in model.named_modules():
        if not isinstance(inner, PreTrainedModel):
            continue
        children = {
            name: (child, sum(weight.numel() for weight in child.parameters()))
            for name, child in inner.named_children()
        }
        for trained_parent, outer in trained.named_modules():
            others = dict(outer.named_children())
            names = tuple(
                name
                for name, (child, _) in children.items()
                if _have_same_type(child, others.get(name))
            )
            n_weights = sum(children[name][1] for name in names)
            if n_weights > most:
                best = SharedModules(parent, trained_parent, names)
                most = n_weights
    return best


def _have_same_type(module: nn.Module, other: nn.Module | None) -> bool:
    if isinstance(module, nn.ModuleList) and isinstance(other, nn.ModuleList):
        return [type(item) for item in module] == [type(item) for item in other]
    return type(module) is type(other)
