"""Find the blocks and parts of an unknown family, and prove them on random tokens."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import permutations

from transformers import PreTrainedModel

from plug_sklearn.embedding.anatomy._block_lists import find_block_lists
from plug_sklearn.embedding.anatomy._contributions import (
    Contributions,
    find_contributions,
)
from plug_sklearn.embedding.anatomy._families import Anatomy, Stack
from plug_sklearn.embedding.anatomy._modules import resolve_modules
from plug_sklearn.embedding.anatomy._tracing import Trace, trace_blocks

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
    """Find a model's blocks by running it, and their parts by what adds up.

    The residual stream of every block is followed from its input to its output, on
    random tokens. What adds to it is a token mixer or an MLP by its name or its class.

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
        Without `attn` and `mlp` but with a `reason` where nothing adds up.

    Raises
    ------
    ValueError
        If there is no list of modules, or they don't carry a residual stream.
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
    scales: dict[str, str] = {}
    for one in known:
        scales |= one.scales
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
    """Tell token mixers, MLPs and others apart; empty where that is unclear."""
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
    """Give paths that lead, in every block, to what adds there; None if none do.

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
    """Give the one attribute that scales all, or those that scale some, by path."""
    paths = {path for part in parts.values() for path in part}
    if scales.keys() == paths and len(set(scales.values())) == 1:
        return next(iter(scales.values()))
    return dict(scales) or None
