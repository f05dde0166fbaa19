"""The models that adapters were trained on, built without weights.

An adapter of a causal model or a classifier changes modules that the model that is read
has too. :class:`SharedModules` says which these are, and moves them.
"""

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

#: What PEFT puts before the name of each module.
PREFIX = "base_model.model."

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
        self._copy(model.get_submodule(self.parent), self._find_parent(trained))

    def move_back(self, model: PreTrainedModel, trained: PreTrainedModel) -> None:
        """Put the modules of the trained model into the model."""
        self._copy(self._find_parent(trained), model.get_submodule(self.parent))

    def _find_parent(self, trained: PreTrainedModel) -> nn.Module:
        return trained.get_submodule(self.trained_parent)

    def _copy(self, source: nn.Module, target: nn.Module) -> None:
        for name in self.names:
            setattr(target, name, getattr(source, name))

    def rename(self, name: str) -> str | None:
        """Name a tensor of the trained model as in the model; None if it has none."""
        prefix = f"{self.trained_parent}." if self.trained_parent else ""
        inner = name.removeprefix(prefix)
        if not name.startswith(prefix) or inner.split(".")[0] not in self.names:
            return None
        return f"{self.parent}.{inner}" if self.parent else inner


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
    if (config.num_labels, text.vocab_size) == (
        trained.config.num_labels,
        trained.config.get_text_config().vocab_size,
    ):
        return trained
    return build_empty(type(trained), config)


def build_empty(
    model_class: type[PreTrainedModel], config: PreTrainedConfig
) -> PreTrainedModel:
    """Build a model without weights."""
    with torch.device("meta"):
        return model_class(deepcopy(config))


def name_parameter(key: str) -> str:
    """Name the parameter that has as many rows as a weight of an adapter.

    Examples
    --------
    >>> name_parameter("base_model.model.score.modules_to_save.weight")
    'score.weight'
    >>> name_parameter("base_model.model.lm_head.lora_B.weight")
    'lm_head.weight'
    """
    name = re.sub(r"\.(modules_to_save|base_layer|lora_B)(?=\.)", "", key)
    return name.removeprefix(PREFIX)


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
