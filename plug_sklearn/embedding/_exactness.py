"""Whether token tries give a model's own states, tried on a few random texts."""

from collections.abc import Callable

import numpy as np
import torch

from plug_sklearn.embedding._capture import Request
from plug_sklearn.embedding._families import PACKABLE
from plug_sklearn.embedding._forward import ForwardPass, States
from plug_sklearn.embedding._preambles import LEAST_PREAMBLE
from plug_sklearn.embedding._reading import Read, find_window, read_padded, read_tries
from plug_sklearn.embedding._tokenized import TokenizedPrompts

# Two ways of computing the same differ by rounding, and rounding depends on the model:
# how far one padded batch differs from single texts is the yardstick.
_TIMES_ROUNDING = 8
_LEAST_UNITS = 16


def explain_padding(forward: ForwardPass) -> str | None:
    """Say why a model is read in padded batches; None where token tries are exact.

    The first call for a model runs a few random texts both ways.

    Parameters
    ----------
    forward : ForwardPass
        The model.

    Returns
    -------
    str or None
        The reason.
    """
    loaded, stack = forward.loaded, forward.request.stack
    if stack not in loaded.why_padded:
        loaded.why_padded[stack] = _try_tries(forward)
    return loaded.why_padded[stack]


def _try_tries(forward: ForwardPass) -> str | None:
    model = forward.loaded.model
    family = model.config.get_text_config().model_type
    if family not in PACKABLE:
        return f"token tries are not known to be exact for {family}"
    if find_window(model.config) <= LEAST_PREAMBLE:
        return f"{family} sees too few tokens back"
    layers = (0, len(forward.blocks) - 1)
    trial = ForwardPass(forward.loaded, Request(layers, ("rs",), "mean"))
    short, long = _draw_prompts(trial)
    try:
        alone = _read(read_padded, trial, short, budget=1)
        padded = _read(read_padded, trial, short), _read(read_padded, trial, long)
        # Packs of two nodes make the long texts' beginning a preamble.
        packed = (
            _read(read_tries, trial, short),
            _read(read_tries, trial, long, pack_nodes=2),
        )
    # A model's code may refuse a 4-D mask, position ids or a cache in any way; and what
    # fails in padded batches as well is told when they are read.
    except Exception as error:
        return f"{family} refuses token tries: {error!r}"
    rounding = _compare(padded[0], alone)
    difference = max(map(_compare, packed, padded))
    units = float(_LEAST_UNITS * torch.finfo(model.dtype).eps)
    if difference > max(_TIMES_ROUNDING * rounding, units):
        return (
            f"token tries differ from padded batches by {difference:.1e} for "
            f"{family}, which differ from single texts by "
            f"{rounding:.1e}"
        )
    return None


def _draw_prompts(trial: ForwardPass) -> tuple[TokenizedPrompts, TokenizedPrompts]:
    """Draw random short texts that share prefixes, and longer ones with a preamble."""
    generator = np.random.default_rng(0)
    n_ids = trial.loaded.model.config.get_text_config().vocab_size
    drawn = generator.integers(n_ids, size=80)
    stem, beginning, rest = drawn[:4], drawn[4:7], drawn[7:]
    short = [
        stem,
        *(np.concatenate([stem, rest[n : 2 * n]]) for n in (1, 3, 5)),
        *(np.concatenate([beginning, rest[n : 2 * n]]) for n in (2, 4)),
        rest[20:28],
    ]
    preamble, ends = rest[:LEAST_PREAMBLE], rest[LEAST_PREAMBLE:]
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


def _compare(found: States, expected: States) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
