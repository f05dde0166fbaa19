"""All prompts → all activations, by the shortest way that is exact."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedConfig

from plug_sklearn.embedding._batches import pad_prompts, pad_tries, run_batches
from plug_sklearn.embedding._forward import ForwardPass, States
from plug_sklearn.embedding._preambles import Preamble, find_runs
from plug_sklearn.embedding._tokenized import TokenizedPrompts
from plug_sklearn.embedding._tries import Pack, build_trie, fill_packs, sort_prompts

#: Nodes in one pack of token tries. Attention is quadratic in it, and a short shared
#: prefix is computed once a pack.
PACK_NODES = 128

Numbers = NDArray[np.int64]
Read = Iterator[tuple[Numbers, States]]


def read_activations(
    forward: ForwardPass, prompts: TokenizedPrompts, budget: int, packs: bool
) -> Read:
    """Read the activations of prompts, batch by batch.

    Parameters
    ----------
    forward : ForwardPass
        The model, and what to read of it.
    prompts : TokenizedPrompts
        What to run.
    budget : int
        Tokens in one batch, padding included.
    packs : bool
        Whether token tries are exact for this model.

    Yields
    ------
    numbers : ndarray of shape (n,), int64
        Prompts of one batch; each prompt comes once, in no certain order.
    states : ndarray of shape (n, n_layers, n_parts, hidden_size), float32
        Their activations.
    """
    everything = np.arange(len(prompts))
    if not packs:
        yield from read_padded(forward, prompts, everything, budget)
        return
    # In a trie a token sees all its ancestors, also those before its window.
    window = find_window(forward.loaded.model.config)
    short = prompts.lengths <= window
    yield from read_tries(forward, prompts, everything[short], budget)
    yield from read_padded(forward, prompts, everything[~short], budget)


def read_padded(
    forward: ForwardPass, prompts: TokenizedPrompts, numbers: Numbers, budget: int
) -> Read:
    """Read some prompts in batches with a row for each."""
    if len(numbers) == 0:
        return
    for rows, states in run_batches(
        prompts.lengths[numbers].tolist(),
        budget,
        lambda rows: forward.run(
            pad_prompts(prompts, numbers[rows].tolist(), forward.pad_id)
        ),
    ):
        yield numbers[rows], states


def read_tries(
    forward: ForwardPass,
    prompts: TokenizedPrompts,
    numbers: Numbers,
    budget: int,
    pack_nodes: int = PACK_NODES,
) -> Read:
    """Read some prompts in packs of token tries, each distinct prefix once a pack.

    A long prefix that many prompts share runs once, and the packs attend to it.
    """
    if len(numbers) == 0:
        return
    prompts = prompts.take(numbers)
    order, shared = sort_prompts(prompts)
    for run in find_runs(prompts, order, shared, pack_nodes):
        members = order[run.places]
        common = np.maximum(shared[run.places] - run.n_shared, 0)
        common[0] = 0
        suffixes = prompts.take(members, skip=run.n_shared)
        packs = fill_packs(suffixes.lengths, common, pack_nodes)
        beginning = prompts.head(members[0], run.n_shared)
        preamble = forward.run_preamble(beginning) if beginning else None
        for places, states in _read_packs(
            forward, suffixes, common, packs, preamble, budget
        ):
            yield numbers[members[places]], states


def _read_packs(
    forward: ForwardPass,
    prompts: TokenizedPrompts,
    shared: Numbers,
    packs: Sequence[Pack],
    preamble: Preamble | None,
    budget: int,
) -> Read:
    """Read packs of sorted prompts, all of them after one preamble or none."""

    def run(chosen: NDArray[np.intp]) -> States:
        tries = []
        for pack in (packs[number] for number in chosen):
            members = range(pack.start, pack.stop)
            common = [0, *shared[pack.start + 1 : pack.stop].tolist()]
            trie = build_trie([prompts.ids_of(member) for member in members], common)
            tries.append((members, trie))
        return forward.run(pad_tries(prompts, tries, forward.pad_id), preamble)

    sizes = [pack.n_nodes for pack in packs]
    for chosen, states in run_batches(sizes, budget, run):
        places = np.concatenate(
            [np.arange(packs[number].start, packs[number].stop) for number in chosen]
        )
        if preamble is not None:
            n_kept = np.array([len(prompts.kept_of(place)) for place in places])
            states = preamble.join(states, forward.request.pooling, n_kept)
        yield places, states


def find_window(config: PreTrainedConfig) -> float:
    """Find how many tokens back a model's attention reaches; infinity for all."""
    text = config.get_text_config()
    names = ("sliding_window", "attention_chunk_size", "window_size")
    windows = [getattr(text, name, None) for name in names]
    return min((window for window in windows if window), default=np.inf)
