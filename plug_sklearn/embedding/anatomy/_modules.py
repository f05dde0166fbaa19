"""Reach the modules of a model by path, and the tensors they take and return."""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput


def first_tensor(output: object) -> Tensor:
    """Return a module's output tensor: itself, or the first of several outputs.

    Parameters
    ----------
    output : Tensor, tuple, list or ModelOutput
        What the module returned.

    Returns
    -------
    Tensor
        Not a copy: some families add to it in place later.

    Raises
    ------
    TypeError
        If the first output is no tensor.
    """
    first = output[0] if isinstance(output, tuple | list | ModelOutput) else output
    if not isinstance(first, Tensor):
        raise TypeError(
            "The output of a module must be a tensor or begin with one. "
            f"Got {type(output).__name__} instead."
        )
    return first


def resolve_modules(root: nn.Module, path: str) -> list[nn.Module]:
    """List the modules at a path below `root`.

    Parameters
    ----------
    root : nn.Module
        Where the path begins.
    path : str
        Names joined by dots. A ``*`` stands for every child, and a list of modules at
        the end of the path for its items.

    Returns
    -------
    list of nn.Module
        Empty where the path leads nowhere.
    """
    modules = [root]
    for name in path.split("."):
        found: list[nn.Module | None] = []
        for module in modules:
            children = dict(module.named_children())
            found += children.values() if name == "*" else [children.get(name)]
        modules = [module for module in found if module is not None]
    return [
        item
        for module in modules
        for item in (module if isinstance(module, nn.ModuleList) else [module])
    ]


def find_input_device(model: PreTrainedModel) -> torch.device:
    """Find the device that a model's token ids go to.

    Parameters
    ----------
    model : PreTrainedModel
        A model, which may be spread over several devices.

    Returns
    -------
    torch.device
        Where its input embeddings are when they run.
    """
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
