"""Reach the modules of a model by path, and the tensors they take and return."""

import re
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

#: How the name of a class of MLPs, dense or of experts, ends.
_MLP_CLASS = re.compile("(mlp|moe|moeblock|feedforward|ffn|experts?)$", re.IGNORECASE)


def is_mlp(module: nn.Module) -> bool:
    """Return whether a module is an MLP by the name of its class."""
    return bool(_MLP_CLASS.search(type(module).__name__))


def first_tensor(output: object) -> Tensor:
    """Return the tensor that a module returned: the output, or the first of several.

    It is not a copy, and some families add to it in place later.

    Raises a TypeError if the first output is no tensor.
    """
    first = output[0] if isinstance(output, tuple | list | ModelOutput) else output
    if not isinstance(first, Tensor):
        raise TypeError(
            "The output of a module must be a tensor or begin with one. "
            f"Got {type(output).__name__} instead."
        )
    return first


def resolve_modules(root: nn.Module, path: str) -> list[nn.Module]:
    """List the modules at a path below `root`, none if the path leads nowhere.

    Names are joined by dots; ``*`` and ``?`` stand for any characters, as in file
    names. A list of modules at the end of the path stands for its items. Several paths
    are joined by commas; of paths joined by ``|``, the first that leads somewhere
    counts.
    """
    return [item for one in path.split(",") for item in _resolve_first(root, one)]


def _resolve_first(root: nn.Module, path: str) -> list[nn.Module]:
    found = (_resolve_path(root, one) for one in path.split("|"))
    return next((modules for modules in found if modules), [])


def _resolve_path(root: nn.Module, path: str) -> list[nn.Module]:
    modules = [root]
    for name in path.split("."):
        modules = [
            child
            for module in modules
            for child_name, child in module._modules.items()
            if child is not None and fnmatchcase(child_name, name)
        ]
    return [
        item
        for module in modules
        for item in (module if isinstance(module, nn.ModuleList) else [module])
    ]


def find_input_device(model: PreTrainedModel) -> torch.device:
    """Find the device of a model's input embeddings, which token ids go to."""
    embeddings = model.get_input_embeddings()
    device = next(embeddings.parameters()).device
    if device.type != "meta":
        return device
    # accelerate has offloaded the weights, and its hook brings them to a device.
    hook = getattr(embeddings, "_hf_hook", None)
    for each in getattr(hook, "hooks", [hook]):
        if getattr(each, "execution_device", None) is not None:
            return torch.device(each.execution_device)
    return torch.device("cpu")
