"""Which way of reading gives a model's own states, tried on a few random texts."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from plug_sklearn.embedding.anatomy._preserving import preserve_state
from plug_sklearn.embedding.anatomy._tracing import list_words, run_random_tokens
from plug_sklearn.embedding.passes._capture import Request
from plug_sklearn.embedding.passes._forward import ForwardPass, States
from plug_sklearn.embedding.passes._lengths import find_choice, find_window
from plug_sklearn.embedding.passes._reading import (
    Read,
    Way,
    read_after_preambles,
    read_padded,
    read_tries,
)
from plug_sklearn.embedding.prompts._tokenized import TokenizedPrompts

# Two ways of computing the same differ by rounding, and rounding depends on the model:
# how far a padded batch is from single texts is the yardstick for token tries. For
# padded batches there is none; what padding does to a model that it matters to is far
# larger than these.
_TIMES_ROUNDING = 8
_UNITS = 4
_PADDED_UNITS = 8
_LEAST_BOUND = 1e-4
# States that run forward are summed in other chunks after a preamble than without it.
_STATES_BOUND = 1e-5

#: Tokens of the longest short text and of the preamble that are tried, at most,
_DEPTH, _PREAMBLE = 9, 32
#: and the least window that some of them fit in.
_LEAST_WINDOW = 4


@dataclass(frozen=True)
class Trial:
    """The outcome of trying a model.

    Attributes
    ----------
    way : Way
        How its texts are read.
    why : str or None
        Why not in token tries; None where they are.
    beyond : Way
        How texts are read that are longer than attention's window.
    changes : bool
        Whether a pass leaves the model in another state, which is then put back.
    n_calls : int
        Calls of a block that a text takes.
    """

    way: Way
    why: str | None = None
    beyond: Way = Way.PADDED
    changes: bool = False
    n_calls: int = 0


def try_ways(forward: ForwardPass) -> Trial:
    """Find how a model is read: the first call for it runs a few random texts.

    Parameters
    ----------
    forward : ForwardPass
        The model.

    Returns
    -------
    Trial
        Remembered for as long as the model is loaded.
    """
    trials, stack = forward.loaded.trials, forward.request.stack
    if stack not in trials:
        trials[stack] = _try(forward)
    trial: Trial = trials[stack]
    return trial


def _try(forward: ForwardPass) -> Trial:
    model = forward.loaded.model
    family = model.config.get_text_config().model_type
    with forward.loaded.lock:
        n_calls = _count_calls(forward)
    if max(forward.request.layers) >= n_calls:
        # Said before anything is read.
        return Trial(Way.PADDED, n_calls=n_calls)
    # What a token mixer adds shows at once where positions are wrong; deep states show
    # all.
    parts = ("rs",) if forward.anatomy.reason else ("attn", "rs")
    layers = tuple(sorted({0, max(forward.request.layers)}))
    trial = ForwardPass(
        forward.loaded, Request(layers, parts, ("mean",), forward.request.stack)
    )
    with forward.loaded.lock, preserve_state(model) as has_changed:
        outcome = _compare_ways(trial, family)
        if not has_changed():
            return replace(outcome, n_calls=n_calls)
    why = f"a pass leaves {family} in a state that depends on the lengths of its texts"
    return Trial(Way.ALIKE, why, changes=True, n_calls=n_calls)


def _count_calls(forward: ForwardPass) -> int:
    calls: list[nn.Module] = []
    with ExitStack() as hooks:
        for block in forward.blocks:
            handle = block.module.register_forward_hook(
                lambda module, *_: calls.append(module)
            )
            hooks.callback(handle.remove)
        try:
            run_random_tokens(forward.loaded.model)
        # What fails here as well is told when the user's own texts are read.
        except Exception:
            return max(forward.request.layers) + 1
    return len(calls)


def _compare_ways(trial: ForwardPass, family: str) -> Trial:
    config = trial.loaded.model.config
    limits = [find_window(config), find_choice(config), _PREAMBLE + _DEPTH]
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        limits.append(positions)
    reach = int(min(limits))
    short, long = _draw_prompts(trial, max(reach, _LEAST_WINDOW))
    eps = float(torch.finfo(trial.loaded.model.dtype).eps)
    try:
        alone = _read(read_padded, trial, short, budget=1)
        padded = _read(read_padded, trial, short)
    # What fails here as well is told when the user's own texts are read.
    except Exception as error:
        return Trial(Way.PADDED, f"random texts could not be tried: {error!r}")
    rounding = _compare(padded, alone)
    if rounding.max() > max(_LEAST_BOUND, _PADDED_UNITS * eps):
        why = f"padding changes the states of {family} by {rounding.max():.1e}"
        return Trial(Way.ALIKE, why)
    bound = np.maximum(_TIMES_ROUNDING * rounding, _UNITS * eps)
    if trial.request.stack is not None:
        return Trial(Way.PADDED, f"{family} is an encoder-decoder")

    def compare_preambles() -> NDArray[np.float64]:
        after = _read(read_after_preambles, trial, long, budget=16)
        return _compare(after, _read(read_padded, trial, long))

    def compare_tries() -> NDArray[np.float64]:
        # Packs and batches so small make the long texts' beginning a preamble.
        packed = _read(read_tries, trial, short)
        after = _read(read_tries, trial, long, budget=16, pack_nodes=2)
        after_padded = _read(read_padded, trial, long)
        return np.maximum(_compare(packed, padded), _compare(after, after_padded))

    no_preambles = _refuse(compare_preambles, np.maximum(bound, _STATES_BOUND))
    beyond = Way.PREAMBLE if no_preambles is None else Way.PADDED
    no_tries = _refuse(compare_tries, bound)
    if reach < _LEAST_WINDOW:
        no_tries = "its attention sees too few tokens back"
    if no_tries is None:
        return Trial(Way.TRIES, beyond=beyond)
    why = f"token tries are not exact for {family}: {no_tries}"
    if no_preambles is not None:
        why += f"; nor are preambles: {no_preambles}"
    return Trial(beyond, why)


def _refuse(
    compare: Callable[[], NDArray[np.float64]], bound: NDArray[np.float64]
) -> str | None:
    """Say why a way is not exact; None where it is."""
    try:
        difference = compare()
    # A model's code may refuse a 4-D mask, position ids or a cache in any way.
    except Exception as error:
        return f"they raise {error!r}"
    if (difference > bound).any():
        return f"they differ from padded batches by {float(difference.max()):.1e}"
    return None


def _draw_prompts(
    trial: ForwardPass, reach: int
) -> tuple[TokenizedPrompts, TokenizedPrompts]:
    """Draw random short texts that share prefixes, and longer ones with a preamble.

    None is longer than `reach`.
    """
    generator = np.random.default_rng(0)
    words = np.array(list_words(trial.loaded.model))
    drawn = words[generator.integers(len(words), size=96)]
    depth = min(_DEPTH, reach)
    n_stem = max(1, depth // 2)
    stem, beginning, rest = drawn[:n_stem], drawn[8 : 7 + n_stem], drawn[16:]
    ends = sorted({1, (depth - n_stem) // 2, depth - n_stem} - {0})
    short = [
        stem,
        *(np.concatenate([stem, rest[n : 2 * n]]) for n in ends),
        *(np.concatenate([beginning, rest[n : 2 * n]]) for n in ends[1:]),
        rest[20 : 20 + depth - 1],
    ]
    n_shared = min(_PREAMBLE, reach - 3)
    preamble, suffixes = rest[:n_shared], rest[40:]
    n_ends = min(3, reach - n_shared)
    # Of several lengths, so that rows after the preamble are padded.
    long = [
        np.concatenate([preamble, suffixes[3 * n : 3 * n + max(1, n_ends - n)]])
        for n in range(3)
    ]
    return TokenizedPrompts.join(short), TokenizedPrompts.join(long)


def _read(
    read: Callable[..., Read],
    trial: ForwardPass,
    prompts: TokenizedPrompts,
    budget: int = 4096,
    **options: int,
) -> States:
    """Read all prompts, in their order."""
    batches = read(trial, prompts, np.arange(len(prompts)), budget, **options)
    numbers, states = map(np.concatenate, zip(*batches, strict=True))
    trial.check_finite(numbers, states)
    found: States = states[np.argsort(numbers)]
    return found


def _compare(found: States, expected: States) -> NDArray[np.float64]:
    """Compare each layer and part by itself: the relative differences, in norm."""
    axes = (0, 3)
    difference = np.sqrt(np.square(found - expected, dtype=np.float64).sum(axis=axes))
    size = np.sqrt(np.square(expected, dtype=np.float64).sum(axis=axes))
    return np.asarray(difference / np.maximum(size, np.finfo(np.float32).tiny))
