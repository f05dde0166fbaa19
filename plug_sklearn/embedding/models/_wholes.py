"""The model that an adapter was trained on, built around the part that is read."""

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


def build_wholes(
    config: PreTrainedConfig,
    *,
    task: str | None,
    class_name: str | None,
    trust_remote_code: bool,
) -> Iterator[PreTrainedModel]:
    """Build the models that an adapter may have been trained on, likely ones first.

    Parameters
    ----------
    config : PreTrainedConfig
        The configuration of the model that is read.
    task, class_name : str or None
        The task and the class that the adapter's configuration names.
    trust_remote_code : bool
        Whether code that the model's repository ships may run.

    Yields
    ------
    PreTrainedModel
        Each class once, without weights: all tensors are on the meta device.
    """
    seen: set[type] = set()
    tasks = sorted(_TASKS, key=lambda name: name != task)
    names = [class_name, *(_TASKS[name] for name in tasks), *_OTHERS]
    for name in names:
        # A text model may have been trained without the towers around it.
        for each in (config, config.get_text_config()):
            whole = _build(name, each, trust_remote_code)
            if whole is not None and type(whole) not in seen:
                seen.add(type(whole))
                yield whole


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


def fit_sizes(whole: PreTrainedModel, weights: Mapping[str, Tensor]) -> PreTrainedModel:
    """Give a model heads and embeddings of the sizes that an adapter has saved.

    Parameters
    ----------
    whole : PreTrainedModel
        A model without weights.
    weights : mapping of str to Tensor
        The adapter's.

    Returns
    -------
    PreTrainedModel
        The model, or another one of the same class.
    """
    config = deepcopy(whole.config)
    text = config.get_text_config()
    sizes = {name: len(tensor) for name, tensor in whole.named_parameters()}
    for key, tensor in weights.items():
        name = name_parameter(key)
        if sizes.get(name, len(tensor)) == len(tensor):
            continue
        if sizes[name] == config.num_labels:
            config.num_labels = len(tensor)
        elif sizes[name] == text.vocab_size:
            text.vocab_size = len(tensor)
    if (config.num_labels, text.vocab_size) == (
        whole.config.num_labels,
        whole.config.get_text_config().vocab_size,
    ):
        return whole
    return build_empty(type(whole), config)


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


@dataclass(frozen=True)
class Seat:
    """Where modules of a model that is read are, and where in the whole they belong.

    Attributes
    ----------
    part, place : str
        Paths of the modules' parents, in the model and in the whole.
    names : tuple of str
        Names of the modules in both.
    """

    part: str
    place: str
    names: tuple[str, ...]

    def take(self, model: PreTrainedModel, whole: PreTrainedModel) -> None:
        """Put the model's modules into the whole."""
        part, place = model.get_submodule(self.part), whole.get_submodule(self.place)
        for name in self.names:
            setattr(place, name, getattr(part, name))

    def leave(self, model: PreTrainedModel, whole: PreTrainedModel) -> None:
        """Put what stands in the whole back into the model."""
        part, place = model.get_submodule(self.part), whole.get_submodule(self.place)
        for name in self.names:
            setattr(part, name, getattr(place, name))

    def translate(self, name: str) -> str | None:
        """Name a tensor of the whole as the model does; None if it has no such one."""
        place = f"{self.place}." if self.place else ""
        inner = name.removeprefix(place)
        if not name.startswith(place) or inner.split(".")[0] not in self.names:
            return None
        return f"{self.part}.{inner}" if self.part else inner


def find_seat(model: PreTrainedModel, whole: PreTrainedModel) -> Seat | None:
    """Find the place of a model, or of the text model in it, in a whole.

    Parameters
    ----------
    model : PreTrainedModel
        As ``AutoModel`` builds it.
    whole : PreTrainedModel
        A model that may hold such modules.

    Returns
    -------
    Seat or None
        The one that holds the most weights.
    """
    best, most = None, 0
    for part, inner in model.named_modules():
        if not isinstance(inner, PreTrainedModel):
            continue
        children = {
            name: (child, sum(weight.numel() for weight in child.parameters()))
            for name, child in inner.named_children()
        }
        for place, outer in whole.named_modules():
            others = dict(outer.named_children())
            names = tuple(
                name
                for name, (child, _) in children.items()
                if _is_alike(child, others.get(name))
            )
            n_weights = sum(children[name][1] for name in names)
            if n_weights > most:
                best, most = Seat(part, place, names), n_weights
    return best


def _is_alike(module: nn.Module, other: nn.Module | None) -> bool:
    if isinstance(module, nn.ModuleList) and isinstance(other, nn.ModuleList):
        return [type(item) for item in module] == [type(item) for item in other]
    return type(module) is type(other)
