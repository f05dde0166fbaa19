"""Which way of reading gives a model's own states, tried on a few random texts."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from plug_sklearn.embedding.anatomy._families import PACKABLE
from plug_sklearn.embedding.anatomy._tracing import list_words
from plug_sklearn.embedding.passes._capture import Request
from plug_sklearn.embedding.passes._forward import ForwardPass, States
from plug_sklearn.embedding.passes._reading import (
    Read,
    Way,
    find_window,
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

#: Tokens of the preamble that is tried.
_PREAMBLE = 32


@dataclass(frozen=True)
class Trial:
    """The outcome of trying a model.

    Attributes
    ----------
    way : Way
        How its texts are read.
    why : str or None
        Why not in token tries; None where they are.
    """

    way: Way
    why: str | None = None


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
    # What attention adds shows at once where positions are wrong; deep states show all.
    has_attn = all(block.attn for block in forward.blocks)
    parts = ("attn", "rs") if has_attn else ("rs",)
    layers = tuple(sorted({0, len(forward.blocks) - 1}))
    request = Request(layers, parts, "mean", forward.request.stack)
    trial = ForwardPass(forward.loaded, request)
    short, long = _draw_prompts(trial)
    eps = float(torch.finfo(model.dtype).eps)
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
    refusal = _refuse_tries(trial, family)
    if refusal is not None:
        return Trial(Way.PADDED, refusal)
    try:
        # Packs and batches so small make the long texts' beginning a preamble.
        packed = _read(read_tries, trial, short)
        after = _read(read_tries, trial, long, budget=512, pack_nodes=2)
        long_padded = _read(read_padded, trial, long)
    # A model's code may refuse a 4-D mask, position ids or a cache in any way.
    except Exception as error:
        return Trial(Way.PADDED, f"{family} refuses token tries: {error!r}")
    bound = np.maximum(_TIMES_ROUNDING * rounding, _UNITS * eps)
    difference = np.maximum(_compare(packed, padded), _compare(after, long_padded))
    if (difference > bound).any():
        worst = float(difference.max())
        why = f"token tries differ from padded batches by {worst:.1e} for {family}"
        return Trial(Way.PADDED, why)
    return Trial(Way.TRIES)


def _refuse_tries(trial: ForwardPass, family: str) -> str | None:
    if family not in PACKABLE:
        return f"token tries are not known to be exact for {family}"
    if find_window(trial.loaded.model.config) <= _PREAMBLE:
        return f"{family} sees too few tokens back"
    return None


def _draw_prompts(trial: ForwardPass) -> tuple[TokenizedPrompts, TokenizedPrompts]:
    """Draw random short texts that share prefixes, and longer ones with a preamble."""
    generator = np.random.default_rng(0)
    words = np.array(list_words(trial.loaded.model))
    drawn = words[generator.integers(len(words), size=80)]
    stem, beginning, rest = drawn[:4], drawn[4:7], drawn[7:]
    short = [
        stem,
        *(np.concatenate([stem, rest[n : 2 * n]]) for n in (1, 3, 5)),
        *(np.concatenate([beginning, rest[n : 2 * n]]) for n in (2, 4)),
        rest[20:28],
    ]
    preamble, ends = rest[:_PREAMBLE], rest[_PREAMBLE:]
    long = [np.concatenate([preamble, ends[n : n + 3]]) for n in (0, 3, 6)]
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
    numbers, states = zip(*batches, strict=True)
    return np.concatenate(states)[np.argsort(np.concatenate(numbers))]


def _compare(found: States, expected: States) -> NDArray[np.float64]:
    """Compare each layer and part by itself: the relative differences, in norm."""
    axes = (0, 3)
    difference = np.sqrt(np.square(found - expected, dtype=np.float64).sum(axis=axes))
    size = np.sqrt(np.square(expected, dtype=np.float64).sum(axis=axes))
    return np.asarray(difference / np.maximum(size, np.finfo(np.float32).tiny))
