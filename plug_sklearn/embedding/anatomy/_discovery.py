"""Find the blocks and parts of an unknown family by running it on random tokens."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, permutations
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from plug_sklearn.embedding.anatomy._contributions import (
    Contributions,
    Trace,
    find_contributions,
    trace_blocks,
)
from plug_sklearn.embedding.anatomy._families import Anatomy, Stack, resolve_modules
from plug_sklearn.embedding.anatomy._model_state import (
    N_TOKENS,
    first_tensor,
    run_hooked,
)

#: What a token mixer has in its path, and what an MLP has.
_MIXER = re.compile(
    "attn|attention|mixer|mamba|ssm|conv|rnn|recurrent|temporal|delta|fourier",
    re.IGNORECASE,
)
_MLP = re.compile("mlp|ffn|feed_?forward|fc2|moe|expert|dense_4h", re.IGNORECASE)
NOTHING_ADDS_UP = (
    "no modules were found that add up to what every block adds to the residual stream"
)
#: Alternative paths to try in every order.
_MOST_ORDERED = 4

Paths = tuple[str, ...]


def discover_anatomy(model: PreTrainedModel, root: str, stack: Stack | None) -> Anatomy:
    """Find a model's blocks, and the modules that add to their residual stream.

    The residual stream of every block is followed from its input to its output, on
    random tokens. What adds to it is a token mixer or an MLP by its name or its class.
    If no modules add up to what a block adds, `attn` and `mlp` are empty, and `reason`
    says so. ``root`` is the path of the text model in the model, or ``""``.

    Raises a ValueError if there is no list of modules that carries a residual stream.
    """
    lists = find_block_lists(model, root, stack)
    if lists.channels is not None:
        reason = "its residual stream has several channels, which every block mixes"
        return replace(lists, reason=reason)
    unknown = replace(lists, reason=NOTHING_ADDS_UP)
    blocks = resolve_modules(model, lists.blocks)
    found: list[Contributions | None] = []
    ran: list[list[str]] = []

    def survey(trace: Trace) -> None:
        # Once a block has failed, the others need not be searched.
        found.append(find_contributions(trace) if None not in found else None)
        ran.append([call.path for call in trace.calls])

    trace_blocks(model, blocks, survey)
    known = [one for one in found if one is not None]
    if not known or len(known) < len(found):
        return unknown
    parts: dict[str, Paths] = {}
    for part, paths in _sort_parts(known, ran).items():
        joined = _join_paths(paths, known, ran)
        if joined is None:
            return unknown
        parts[part] = joined
    if not parts:
        return unknown
    scales = {path: name for one in known for path, name in one.scales.items()}
    return replace(
        lists,
        attn=parts["attn"],
        mlp=parts["mlp"],
        others=parts["others"],
        multiplier=_join_scales(scales, parts),
        post_norm=any(one.rescaled for one in known),
    )


def _sort_parts(
    found: Sequence[Contributions], ran: Sequence[Sequence[str]]
) -> dict[str, list[str]]:
    """Sort modules into token mixers, MLPs and others; none where that is unclear."""
    parts: dict[str, list[str]] = {"attn": [], "mlp": [], "others": []}
    for one, modules in zip(found, ran, strict=True):
        for path, kind in _name_kinds(one.paths, modules).items():
            if path not in parts[kind]:
                parts[kind].append(path)
    names = [path for paths in parts.values() for path in paths]
    if len(set(names)) < len(names) or not parts["attn"] + parts["mlp"]:
        return {}
    return parts


def _name_kinds(paths: Paths, modules: Sequence[str]) -> dict[str, str]:
    kinds = {path: _name_kind(path) for path in paths}
    *before, last = paths
    # What a block adds last, and after mixers only, is its MLP whatever its name.
    if kinds[last] == "others" and {kinds[path] for path in before} == {"attn"}:
        kinds[last] = "mlp"
    start = 0
    for path in paths:
        place = modules.index(path)
        # A norm may follow a mixer or an MLP and have a name that tells nothing.
        inside = [one for one in modules[start:place] if "norm" not in one.lower()]
        if kinds[path] == "others" and "norm" in path.lower() and inside:
            kinds[path] = _name_kind(inside[-1])
        start = place
    return kinds


def _name_kind(path: str) -> str:
    mixer, mlp = _MIXER.search(path), _MLP.search(path)
    if mixer and mlp:
        return "attn" if mixer.start() < mlp.start() else "mlp"
    return "attn" if mixer else "mlp" if mlp else "others"


def _join_paths(
    paths: Sequence[str], found: Sequence[Contributions], ran: Sequence[Sequence[str]]
) -> Paths | None:
    """Return paths that lead, in every block, to what adds there; None if none do.

    In some hybrids a module adds by itself in one kind of block, and through a norm in
    another: then the paths are alternatives.
    """

    def lead(paths: Sequence[str]) -> bool:
        return all(
            {path for path in paths if path in modules} <= set(one.paths)
            for one, modules in zip(found, ran, strict=True)
        )

    def lead_first(paths: Sequence[str]) -> bool:
        chosen = (
            (next((path for path in paths if path in modules), None), one)
            for one, modules in zip(found, ran, strict=True)
        )
        return all(path is None or path in one.paths for path, one in chosen)

    if lead(paths):
        return tuple(paths)
    alone = all(len(set(paths) & set(one.paths)) <= 1 for one in found)
    orders = permutations(paths) if alone and len(paths) <= _MOST_ORDERED else ()
    best = next((order for order in orders if lead_first(order)), None)
    return None if best is None else ("|".join(best),)


def _join_scales(
    scales: Mapping[str, str], parts: Mapping[str, Sequence[str]]
) -> str | dict[str, str] | None:
    """Return the one attribute that scales all, or those that scale some, by path."""
    paths = {path for part in parts.values() for path in part}
    if scales.keys() == paths and len(set(scales.values())) == 1:
        return next(iter(scales.values()))
    return dict(scales) or None


@dataclass
class _Pass:
    """What a module in a list took and gave in one call."""

    path: str
    taken: Tensor
    given: Tensor

    def follows(self, before: "_Pass") -> bool:
        return self.taken.shape == before.given.shape and self.taken.equal(before.given)


def find_block_lists(model: PreTrainedModel, root: str, stack: Stack | None) -> Anatomy:
    """Find the lists of modules that carry the residual stream of random tokens.

    Gives their paths and the layout of the blocks' outputs, but no parts.
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
            f"with a list of blocks. Got {type(model).__name__} instead. If its blocks "
            "are in another kind of list, name it with register_anatomy."
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
            is_first = states.dim() == 3 and states.shape[:2] == (N_TOKENS, 1)
            token_axis = 0 if is_first else 1
            return Anatomy(",".join(joined), channels=channels, token_axis=token_axis)
    largest = max(lists, key=lambda path: _count_weights(lists[path]))
    raise ValueError(
        "The 'model_name' parameter of HFEmbeddingTransformer must name a model whose "
        "blocks return states of shape (texts, tokens, hidden size). Got "
        f"{type(model).__name__} instead, whose modules in {largest!r} do not. If its "
        "blocks are elsewhere, name them with register_anatomy."
    )


def _record_passes(
    model: PreTrainedModel, lists: dict[str, nn.ModuleList]
) -> list[_Pass]:
    passes: list[_Pass] = []

    def record(
        path: str,
        _: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        output: object,
    ) -> None:
        with suppress(TypeError):
            taken = first_tensor(args or tuple(kwargs.values()))
            given = first_tensor(output)
            passes.append(_Pass(path, taken.detach().clone(), given.detach().clone()))

    hooks = [
        module.register_forward_hook(partial(record, path), with_kwargs=True)
        for path, modules in lists.items()
        for module in modules
    ]
    run_hooked(model, hooks)
    return passes


def _carries_stream(passes: Sequence[_Pass]) -> bool:
    """Return whether modules hand states on, each to the next."""
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
