"""Refuse a checkpoint that lacks weights which the activations depend on."""

import re
from collections.abc import Iterable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from plug_sklearn.embedding.anatomy import (
    Stack,
    anatomy_of,
    draw_tokens,
    find_blocks,
    first_tensor,
)
from plug_sklearn.embedding.models._sharing import LoadedModel


def require_weights(loaded: LoadedModel, stack: Stack | None, name: str) -> None:
    """Check that all weights that a stack's activations depend on were loaded.

    Heads, poolers and stacks that are not read may lack weights. ``name`` is what the
    user calls the model.

    Raises a ValueError if weights of a block are missing, or weights that a block's
    output depends on, such as embeddings.
    """
    if not loaded.missing or stack in loaded.complete:
        return
    with loaded.lock:
        read = _find_read(loaded.model, stack, loaded.missing)
    if not read:
        loaded.complete.add(stack)
        return
    raise ValueError(
        "The 'model_name' parameter of HFEmbeddingTransformer must name a model whose "
        f"files hold all weights that are read. Got {name!r} instead: {len(read)} "
        f"weights are missing or have another shape, of which the first is {read[0]!r}."
        + _suggest_renaming(read[0], loaded.unused)
    )


def _suggest_renaming(missing: str, unused: Iterable[str]) -> str:
    """Explain how to find a weight that has another prefix in the files."""
    renamed = min((name for name in unused if name.endswith(f".{missing}")), default="")
    if not renamed:
        return ""
    mapping = {f"^{re.escape(renamed.removesuffix(missing))}": ""}
    return (
        f" The files hold {renamed!r}. If that is the weight, "
        f"model_kwargs={{'key_mapping': {mapping}}} changes the names."
    )


def _find_read(
    model: PreTrainedModel, stack: Stack | None, missing: Iterable[str]
) -> list[str]:
    """List the missing weights that are read, in the model's order."""
    stacks: list[Stack | None] = [stack]
    if stack == "decoder":
        # The decoder attends to what the encoder puts out.
        stacks.append("encoder")
    blocks = [
        block.module
        for each in stacks
        for block in find_blocks(model, anatomy_of(model, each))
    ]
    absent = {
        name: tensor for name, tensor in _list_tensors(model) if name in set(missing)
    }
    inside = {id(tensor) for block in blocks for _, tensor in _list_tensors(block)}
    # Random tokens need not reach each expert of a block; they reach all else.
    others = [tensor for tensor in absent.values() if id(tensor) not in inside]
    reached = inside | _find_reached(model, blocks, others)
    return [name for name, tensor in absent.items() if id(tensor) in reached]


def _list_tensors(module: nn.Module) -> Iterable[tuple[str, Tensor]]:
    return chain(
        module.named_parameters(remove_duplicate=False),
        module.named_buffers(remove_duplicate=False),
    )


def _find_reached(
    model: PreTrainedModel, blocks: Iterable[nn.Module], tensors: Iterable[Tensor]
) -> set[int]:
    """Find which tensors the outputs of the blocks depend on, by their ids.

    Autograd's graph of one pass tells: it leads from each output to all tensors that
    went into it.
    """
    watched = [t for t in tensors if t.is_floating_point() and not t.is_meta]
    # Of others there is no graph: they count as read.
    reached = {id(t) for t in tensors} - {id(t) for t in watched}
    if not watched:
        return reached
    outputs: list[Tensor] = []
    handles = [
        block.register_forward_hook(
            lambda _, __, output: outputs.append(first_tensor(output))
        )
        for block in blocks
    ]
    try:
        for tensor in watched:
            tensor.requires_grad_(True)
        with torch.enable_grad():
            model(**draw_tokens(model))
    finally:
        for handle in handles:
            handle.remove()
        for tensor in watched:
            tensor.requires_grad_(False)
    return reached | _walk_graph(outputs)


def _walk_graph(outputs: Iterable[Tensor]) -> set[int]:
    """Return the ids of all leaves that tensors were computed from."""
    nodes: list[Any] = [output.grad_fn for output in outputs]
    seen, leaves = set(), set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            leaves.add(id(leaf))
        nodes += [before for before, _ in node.next_functions]
    return leaves
