"""Find a model's lists of blocks: those that its residual stream runs through."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from plug_sklearn.embedding.anatomy._families import Anatomy, Stack
from plug_sklearn.embedding.anatomy._modules import first_tensor
from plug_sklearn.embedding.anatomy._tracing import (
    N_TOKENS,
    explain_failure,
    run_random_tokens,
)


@dataclass
class _Pass:
    """One call of a module in a list."""

    path: str
    taken: Tensor
    given: Tensor

    def follows(self, before: "_Pass") -> bool:
        return self.taken.shape == before.given.shape and self.taken.equal(before.given)


def find_block_lists(model: PreTrainedModel, root: str, stack: Stack | None) -> Anatomy:
    """Find the lists of modules that carry the residual stream of random tokens.

    Parameters
    ----------
    model : PreTrainedModel
        A model of any family.
    root : str
        Path of the text model in it, or ``""``.
    stack : {"encoder", "decoder"} or None
        The stack of an encoder-decoder.

    Returns
    -------
    Anatomy
        The lists, and the layout of the blocks' outputs; no parts.

    Raises
    ------
    ValueError
        If there is no list of modules, or none carries a residual stream.
    """
    lists = {
        path: modules
        for path, modules in model.get_submodule(root).named_modules(prefix=root)
        if isinstance(modules, nn.ModuleList)
        and len(modules)
        and (stack is None or stack in path.split("."))
    }
    if not lists:
        raise ValueError(
            "The 'model_name' parameter of HFEmbeddingTransformer must name a model "
            f"with a list of blocks. Got {type(model).__name__} instead; if it has "
            "one of another kind, tell where with register_anatomy."
        )
    passes = _record_passes(model, lists)
    # A tower for images or sounds does not run on text. Blocks hold nearly all of a
    # stack's weights, and a list within them holds fewer.
    ran = {one.path for one in passes} & lists.keys()
    sizes = {path: _count_weights(lists[path]) for path in ran}
    for path in sorted(ran, key=lambda path: -sizes[path]):
        own = [one for one in passes if one.path == path]
        if _carries_stream(own):
            joined = _join_lists(path, passes, lists)
            states = own[0].given
            channels = _find_channels(states, model.config.get_text_config())
            return Anatomy(
                ",".join(joined),
                channels=channels,
                token_axis=_find_token_axis(states),
            )
    largest = max(lists, key=lambda path: _count_weights(lists[path]))
    raise ValueError(
        "The 'model_name' parameter of HFEmbeddingTransformer must name a model "
        "whose blocks hand on states of shape (texts, tokens, hidden size). Got "
        f"{type(model).__name__} instead, whose modules in {largest!r} do not; if its "
        "blocks are elsewhere, tell where with register_anatomy."
    )


def _record_passes(
    model: PreTrainedModel, lists: dict[str, nn.ModuleList]
) -> list[_Pass]:
    passes: list[_Pass] = []

    def listen(path: str) -> Any:  # noqa: ANN401 - a hook, which torch types loosely
        def hook(
            _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object
        ) -> None:
            try:
                taken = first_tensor(args or tuple(kwargs.values()))
                given = first_tensor(output)
            except TypeError:
                return
            passes.append(_Pass(path, taken.detach().clone(), given.detach().clone()))

        return hook

    handles = [
        module.register_forward_hook(listen(path), with_kwargs=True)
        for path, modules in lists.items()
        for module in modules
    ]
    try:
        with explain_failure(model):
            run_random_tokens(model)
    finally:
        for handle in handles:
            handle.remove()
    return passes


def _carries_stream(passes: Sequence[_Pass]) -> bool:
    """Tell whether modules hand states on, each to the next."""
    shape = passes[0].given.shape
    # Some models pad within, to a multiple of the tokens that attention looks at.
    shaped = (shape[0] == 1 and shape[1] >= N_TOKENS) or shape[1:3] == (1, N_TOKENS)
    # Others put the tokens first.
    shaped = shaped or shape[:2] == (N_TOKENS, 1)
    alike = all(one.given.shape == one.taken.shape == shape for one in passes)
    # What some families do to the stream between two blocks breaks that link only.
    linked = len(passes) == 1 or any(
        after.follows(before) for before, after in pairwise(passes)
    )
    return shaped and len(shape) in (3, 4) and alike and linked


def _find_channels(states: Tensor, config: PreTrainedConfig) -> int | None:
    if states.dim() == 3:
        width = getattr(config, "hidden_size", None) or states.shape[-1]
        return -1 if states.shape[-1] > width else None
    return 0 if states.shape[1:3] == (1, N_TOKENS) else 2


def _find_token_axis(states: Tensor) -> int:
    return 0 if states.dim() == 3 and states.shape[:2] == (N_TOKENS, 1) else 1


def _join_lists(
    path: str, passes: Sequence[_Pass], lists: dict[str, nn.ModuleList]
) -> list[str]:
    """Add the lists that the same stream runs through before, after or in turn."""
    joined = [path]
    classes = {type(module) for module in lists[path]}
    for other in dict.fromkeys(one.path for one in passes):
        inside = f"{other}.".startswith(f"{path}.") or path.startswith(f"{other}.")
        own = [one for one in passes if one.path == other]
        if other == path or inside or not _carries_stream(own):
            continue
        members = [one for one in passes if one.path in (path, other)]
        links = any(
            one.path != two.path and two.follows(one) for one, two in pairwise(members)
        )
        if links or classes == {type(module) for module in lists[other]}:
            joined.append(other)
    order = list(lists)
    return sorted(joined, key=order.index)


def _count_weights(modules: nn.ModuleList) -> int:
    return sum(weight.numel() for weight in modules.parameters())
