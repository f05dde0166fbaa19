"""Choose the fastest exact strategy for a model, by a trial on random prompts."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from plug_sklearn.embedding.anatomy import (
    list_words,
    restore_state,
    run_random_tokens,
)
from plug_sklearn.embedding.models import (
    find_attention_window,
    find_index_limit,
    find_rotary_threshold,
)
from plug_sklearn.embedding.passes._capture import Request
from plug_sklearn.embedding.passes._forward import ForwardPass
from plug_sklearn.embedding.passes._pooling import States
from plug_sklearn.embedding.passes._reading import (
    Read,
    Strategy,
    read_after_prefixes,
    read_padded,
    read_tries,
)
from plug_sklearn.embedding.passes._trial_memory import (
    Outcome,
    describe_trial,
    recall_outcome,
    remember_outcome,
)
from plug_sklearn.embedding.prompts import TokenizedPrompts

# Two exact ways of computing the same differ by rounding, and how much depends on the
# model. For tries, the bound is what a padded batch differs from single prompts. For
# padded batches there is no such measure; but where padding is wrong, it changes states
# by far more than these.
_TIMES_ROUNDING = 8
_UNITS = 4
_PADDED_UNITS = 8
_LEAST_BOUND = 1e-4
# Recurrent layers sum their states in other chunks after a prefix than without one.
_STATES_BOUND = 1e-5

#: Tokens of the longest short prompt, and of the shared prefix, that are tried at most.
_LONGEST, _PREFIX = 9, 32
#: The least attention window that some of them fit in.
_LEAST_WINDOW = 4


@dataclass(frozen=True)
class Trial:
    """The outcome of trying a model.

    Attributes
    ----------
    strategy : Strategy
        How its prompts share passes.
    why : str or None
        Why not in token tries; None where they are.
    beyond_window : Strategy
        The strategy for prompts longer than the attention window.
    changes : bool
        Whether a pass changes the model's state, which must then be restored.
    n_calls : int
        How many blocks one prompt runs through.
    failed : bool
        Whether the model could not be tried.
    """

    strategy: Strategy
    why: str | None = None
    beyond_window: Strategy = Strategy.PADDED
    changes: bool = False
    n_calls: int = 0
    failed: bool = False


def choose_strategy(forward: ForwardPass) -> Trial:
    """Choose the fastest strategy that is exact for a model.

    The first call runs a few random prompts. The outcome is kept for as long as the
    model is loaded, and remembered for other processes that load it in the same way.
    """
    trials, stack = forward.loaded.trials, forward.request.stack
    if stack not in trials:
        description = describe_trial(forward)
        outcome = None if description is None else recall_outcome(description)
        trial = None if outcome is None else _read_outcome(outcome)
        if trial is None:
            trial = _try(forward)
            # The next process may have more memory.
            lasts = not trial.failed and "memory" not in str(trial.why)
            if description is not None and lasts:
                remember_outcome(description, asdict(trial))
        trials[stack] = trial
    found: Trial = trials[stack]
    return found


def _read_outcome(outcome: Outcome) -> Trial | None:
    """Read a trial that is remembered; None if it is not one."""
    try:
        ways = {name: Strategy(outcome[name]) for name in ("strategy", "beyond_window")}
        return Trial(**{**outcome, **ways})
    except (KeyError, TypeError, ValueError):
        return None


def _try(forward: ForwardPass) -> Trial:
    model = forward.loaded.model
    family = model.config.get_text_config().model_type
    with forward.loaded.lock:
        counted = _count_calls(forward)
    deepest = max(forward.request.layers)
    n_calls = deepest + 1 if counted is None else counted
    if deepest >= n_calls:
        # The caller raises an error before anything is read.
        return Trial(Strategy.PADDED, n_calls=n_calls, failed=True)
    # What a token mixer adds shows wrong positions at once; deep states show anything.
    parts = ("rs",) if forward.anatomy.reason else ("attn", "rs")
    layers = tuple(sorted({0, deepest}))
    tried = ForwardPass(
        forward.loaded, Request(layers, parts, ("mean",), forward.request.stack)
    )
    restored = restore_state(model, set_by_each_pass=forward.rotary_modules)
    with forward.loaded.lock, restored as has_changed:
        trial = _compare_strategies(tried, family)
        if not has_changed():
            failed = trial.failed or counted is None
            return replace(trial, n_calls=n_calls, failed=failed)
    why = f"a pass leaves {family} in a state that depends on the lengths of its texts"
    return Trial(
        Strategy.EQUAL_LENGTH,
        why,
        changes=True,
        n_calls=n_calls,
        failed=counted is None,
    )


def _count_calls(forward: ForwardPass) -> int | None:
    """Count the blocks that one prompt runs through; None if the model fails."""
    calls: list[nn.Module] = []
    with ExitStack() as hooks:
        for block in forward.blocks:
            handle = block.module.register_forward_hook(
                lambda module, *_: calls.append(module)
            )
            hooks.callback(handle.remove)
        try:
            run_random_tokens(forward.loaded.model)
        # An error that is no matter of random tokens comes again with the user's texts.
        except Exception:
            return None
    return len(calls)


def _compare_strategies(tried: ForwardPass, family: str) -> Trial:
    config = tried.loaded.model.config
    limits = [
        find_attention_window(config),
        find_index_limit(config),
        find_rotary_threshold(config),
        _PREFIX + _LONGEST,
    ]
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        limits.append(positions)
    reach = int(min(limits))
    short, long = _draw_prompts(tried, max(reach, _LEAST_WINDOW))
    eps = float(torch.finfo(tried.loaded.model.dtype).eps)
    try:
        alone = _read(read_padded, tried, short, budget=1)
        padded = _read(read_padded, tried, short)
    # As in _count_calls.
    except Exception as error:
        why = f"random texts could not be tried: {error!r}"
        return Trial(Strategy.PADDED, why, failed=True)
    rounding = _compare(padded, alone)
    if rounding.max() > max(_LEAST_BOUND, _PADDED_UNITS * eps):
        why = f"padding changes the states of {family} by {rounding.max():.1e}"
        return Trial(Strategy.EQUAL_LENGTH, why)
    bound = np.maximum(_TIMES_ROUNDING * rounding, _UNITS * eps)
    if tried.request.stack is not None:
        return Trial(Strategy.PADDED, f"{family} is an encoder-decoder")

    def compare_prefixes() -> NDArray[np.float64]:
        after = _read(read_after_prefixes, tried, long, budget=16)
        return _compare(after, _read(read_padded, tried, long))

    def compare_tries() -> NDArray[np.float64]:
        # Tries and batches so small make the long prompts' beginning a shared prefix.
        packed = _read(read_tries, tried, short)
        after = _read(read_tries, tried, long, budget=16, pack_nodes=2)
        after_padded = _read(read_padded, tried, long)
        return np.maximum(_compare(packed, padded), _compare(after, after_padded))

    no_prefixes = _explain_inexact(compare_prefixes, np.maximum(bound, _STATES_BOUND))
    beyond = Strategy.SHARED_PREFIX if no_prefixes is None else Strategy.PADDED
    no_tries = _explain_inexact(compare_tries, bound)
    if reach < _LEAST_WINDOW:
        no_tries = "its attention sees too few tokens back"
    if no_tries is None:
        return Trial(Strategy.TRIES, beyond_window=beyond)
    why = f"token tries are not exact for {family}: {no_tries}"
    if no_prefixes is not None:
        why += f"; nor are shared prefixes: {no_prefixes}"
    return Trial(beyond, why)


def _explain_inexact(
    compare: Callable[[], NDArray[np.float64]], bound: NDArray[np.float64]
) -> str | None:
    """Say why a strategy is not exact; None where it is."""
    why = None
    # The outcome is kept for as long as the model is loaded: an error that does not
    # come again, such as of too little memory, must not decide.
    for _ in range(2):
        try:
            difference = compare()
        # A model's code may refuse a 4-D mask, position ids or a cache in any way.
        except Exception as error:
            why = f"they raise {error!r}"
            continue
        if (difference > bound).any():
            return f"they differ from padded batches by {float(difference.max()):.1e}"
        return None
    return why


def _draw_prompts(
    tried: ForwardPass, reach: int
) -> tuple[TokenizedPrompts, TokenizedPrompts]:
    """Draw short random prompts that share prefixes, and longer ones that share one.

    None is longer than `reach`.
    """
    generator = np.random.default_rng(0)
    words = np.array(list_words(tried.loaded.model))
    drawn = words[generator.integers(len(words), size=96)]
    longest = min(_LONGEST, reach)
    n_stem = max(1, longest // 2)
    stem, beginning, rest = drawn[:n_stem], drawn[8 : 7 + n_stem], drawn[16:]
    ends = sorted({1, (longest - n_stem) // 2, longest - n_stem} - {0})
    short = [
        stem,
        *(np.concatenate([stem, rest[n : 2 * n]]) for n in ends),
        *(np.concatenate([beginning, rest[n : 2 * n]]) for n in ends[1:]),
        rest[20 : 20 + longest - 1],
    ]
    n_shared = min(_PREFIX, reach - 3)
    prefix, suffixes = rest[:n_shared], rest[40:]
    n_ends = min(3, reach - n_shared)
    # Of several lengths, so that rows after the prefix are padded.
    long = [
        np.concatenate([prefix, suffixes[3 * n : 3 * n + max(1, n_ends - n)]])
        for n in range(3)
    ]
    return TokenizedPrompts.join(short), TokenizedPrompts.join(long)


def _read(
    read: Callable[..., Read],
    tried: ForwardPass,
    prompts: TokenizedPrompts,
    budget: int = 4096,
    **options: int,
) -> States:
    """Read all prompts, in their order."""
    batches = read(tried, prompts, np.arange(len(prompts)), budget, **options)
    numbers, states = map(np.concatenate, zip(*batches, strict=True))
    tried.check_finite(numbers, states)
    found: States = states[np.argsort(numbers)]
    return found


def _compare(found: States, expected: States) -> NDArray[np.float64]:
    """Compare each layer and part by itself: the relative differences, in norm."""
    axes = (0, 3)
    difference = np.sqrt(np.square(found - expected, dtype=np.float64).sum(axis=axes))
    size = np.sqrt(np.square(expected, dtype=np.float64).sum(axis=axes))
    return np.asarray(difference / np.maximum(size, np.finfo(np.float32).tiny))
