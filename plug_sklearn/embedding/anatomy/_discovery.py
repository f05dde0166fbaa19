"""Find the blocks and parts of an unknown family, and prove them on random tokens."""

import re
from collections.abc import Iterator, Sequence
from itertools import combinations, product

from torch import nn
from transformers import PreTrainedModel

from plug_sklearn.embedding.anatomy._families import Anatomy, Stack
from plug_sklearn.embedding.anatomy._modules import resolve_modules
from plug_sklearn.embedding.anatomy._tracing import N_TOKENS, Trace, trace_blocks

# Linear attention mixes tokens as a state space does: it gives no attention part.
_ATTENTION = re.compile("(?<!linear_)(attn|attention)", re.IGNORECASE)
_MLP = re.compile("mlp|ffn|feed_?forward|fc2|moe", re.IGNORECASE)

Paths = tuple[str, ...]


def discover_anatomy(model: PreTrainedModel, root: str, stack: Stack | None) -> Anatomy:
    """Find a model's blocks by their size, and their parts by what adds up.

    The parts are modules A and M for which ``block output == block input + A + M``
    holds in every block on random tokens, A having attention in its name. A block
    without A may add something else instead, such as linear attention.

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
    path = _find_block_path(model, root, stack)
    blocks = resolve_modules(model, path)
    last: list[Trace] = []
    links: list[bool] = []
    parts: list[tuple[Paths, Paths]] = []

    def survey(trace: Trace) -> None:
        links.extend(trace.follows(before) for before in last)
        last[:] = [trace]
        if not parts:
            parts.extend(_find_parts(trace))

    trace_blocks(model, blocks, survey)
    _check_stream(model, path, last, links)
    holds: list[bool] = []
    if parts:
        trace_blocks(
            model, blocks, lambda trace: holds.append(_parts_hold(trace, *parts[0]))
        )
    if holds and all(holds):
        return Anatomy(path, *parts[0])
    return Anatomy(
        path,
        reason="no modules were found that add up to what every block adds to the "
        "residual stream",
    )


def _find_block_path(model: PreTrainedModel, root: str, stack: Stack | None) -> str:
    lists: list[tuple[str, nn.ModuleList]] = [
        (path, modules)
        for path, modules in model.get_submodule(root).named_modules(prefix=root)
        if isinstance(modules, nn.ModuleList)
        and (stack is None or stack in path.split("."))
    ]
    if not lists:
        raise ValueError(
            "The 'model_name' parameter of HFEmbeddingTransformer must name a model "
            f"with a list of blocks. Got {type(model).__name__} instead; if it has "
            "one of another kind, tell where with register_anatomy."
        )
    # Blocks hold nearly all of a stack's weights, and a list within them holds fewer.
    return max(lists, key=_count_weights)[0]


def _count_weights(item: tuple[str, nn.ModuleList]) -> int:
    return sum(weight.numel() for weight in item[1].parameters())


def _check_stream(
    model: PreTrainedModel, path: str, last: Sequence[Trace], links: Sequence[bool]
) -> None:
    shape = tuple(last[0].given.shape) if last else ()
    # What some families do to the stream between two blocks breaks that link only.
    linked = any(links) or not links
    if not linked or len(shape) != 3 or shape[:2] != (1, N_TOKENS):
        raise ValueError(
            "The 'model_name' parameter of HFEmbeddingTransformer must name a model "
            "whose blocks hand on states of shape (texts, tokens, hidden size). Got "
            f"{type(model).__name__} instead, whose modules in {path!r} do not; if its "
            "blocks are elsewhere, tell where with register_anatomy."
        )


def _find_parts(trace: Trace) -> Iterator[tuple[Paths, Paths]]:
    """Yield the modules nearest to the block whose outputs are its parts."""
    attention = [path for path in trace.outputs if _ATTENTION.search(path)]
    others = [
        path for path in trace.outputs if path not in attention or _MLP.search(path)
    ]
    choices = product(_one_or_two(attention), _one_or_two(others))
    for attn, mlp in sorted(choices, key=_rank_choice):
        sums = trace.take(attn), trace.take(mlp)
        if (
            trace.adds_up(sums[0] + sums[1])
            # A module that adds nothing to speak of proves nothing either.
            and not trace.adds_up(sums[0])
            and not trace.adds_up(sums[1])
        ):
            yield attn, mlp
            return


def _one_or_two(paths: Sequence[str]) -> list[Paths]:
    return [(path,) for path in paths] + list(combinations(paths, 2))


def _rank_choice(choice: tuple[Paths, Paths]) -> tuple[int, bool, int, int]:
    """Rank fewer modules first, then those named for an MLP, then nearer ones."""
    paths = choice[0] + choice[1]
    return (
        len(paths),
        not all(_MLP.search(path) for path in choice[1]),
        sum(path.count(".") for path in paths),
        sum(map(len, paths)),
    )


def _parts_hold(trace: Trace, attn: Paths, mlp: Paths) -> bool:
    known = trace.take(attn + mlp)
    if trace.adds_up(known):
        return True
    return not trace.take(attn) and any(
        trace.adds_up([*known, other]) for other in trace.outputs.values()
    )
