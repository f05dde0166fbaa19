"""All prompts → all activations, by the shortest way that is exact."""

from collections.abc import Iterator, Sequence
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedConfig

from plug_sklearn.embedding.models._limits import (
    find_dynamic_start,
    list_rope_parameters,
)
from plug_sklearn.embedding.passes._batches import pad_prompts, pad_tries, run_batches
from plug_sklearn.embedding.passes._forward import ForwardPass, States
from plug_sklearn.embedding.passes._preambles import Preamble, find_runs, pack_after
from plug_sklearn.embedding.passes._tries import (
    Pack,
    build_trie,
    fill_packs,
    sort_prompts,
)
from plug_sklearn.embedding.prompts._tokenized import TokenizedPrompts

#: Nodes in one pack of token tries. Attention is quadratic in it, and a short shared
#: prefix is computed once a pack.
PACK_NODES = 128

Numbers = NDArray[np.int64]
Read = Iterator[tuple[Numbers, States]]


class Way(Enum):
    """How texts are read: token tries, padded batches, or batches of equal length."""

    TRIES = "tries"
    PADDED = "padded"
    ALIKE = "alike"


def read_activations(
    forward: ForwardPass, prompts: TokenizedPrompts, budget: int, way: Way
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
    way : Way
        The shortest way that is exact for this model.

    Yields
    ------
    numbers : ndarray of shape (n,), int64
        Prompts of one batch; each prompt comes once, in no certain order.
    states : ndarray of shape (n, n_layers, n_parts, hidden_size), float32
        Their activations.
    """
    lengths, numbers = prompts.lengths, np.arange(len(prompts))
    config = forward.loaded.model.config
    # With dynamic scaling, rotary factors depend on the longest row of a pass.
    alike = lengths > (0 if way is Way.ALIKE else find_dynamic_start(config))
    for length in np.unique(lengths[alike]):
        yield from read_padded(forward, prompts, numbers[lengths == length], budget)
    numbers, lengths = numbers[~alike], lengths[~alike]
    # Beyond the wall, rotary factors are others for all texts of a pass.
    wall = find_wall(config)
    short = numbers[lengths <= wall]
    if way is Way.TRIES:
        # In a trie a token sees all its ancestors, also those before its window.
        fits = lengths[short] <= find_window(config)
        yield from read_tries(forward, prompts, short[fits], budget)
        short = short[~fits]
    yield from read_padded(forward, prompts, short, budget)
    yield from read_padded(forward, prompts, numbers[lengths > wall], budget)


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
            pad_prompts(
                prompts, numbers[rows].tolist(), forward.pad_id, forward.row_multiple
            )
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

    A prefix that many prompts share runs once, and the packs attend to it.
    """
    if len(numbers) == 0:
        return
    chosen = prompts.take(numbers)
    order, shared = sort_prompts(chosen)
    for run in find_runs(chosen, order, shared, pack_nodes, budget):
        members = order[run.places]
        common = np.maximum(shared[run.places] - run.n_shared, 0)
        common[0] = 0
        suffixes = chosen.take(members, skip=run.n_shared)
        beginning = chosen.head(members[0], run.n_shared)
        preamble, capacity = None, pack_nodes
        if beginning is not None:
            preamble = forward.run_preamble(beginning)
            capacity = pack_after(run.n_shared, pack_nodes)
        packs = fill_packs(suffixes.lengths, common, capacity)
        if preamble is None:
            # A trie of one prompt is a row like any other, without a mask of its own.
            single = [pack.start for pack in packs if pack.stop == pack.start + 1]
            yield from read_padded(forward, prompts, numbers[members[single]], budget)
            packs = [pack for pack in packs if pack.stop > pack.start + 1]
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

    # A preamble's keys and values take room in each row.
    n_before = preamble.n_tokens if preamble else 0
    sizes = [n_before + pack.n_nodes for pack in packs]
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


def find_wall(config: PreTrainedConfig) -> float:
    """Find the length from which on a pass uses other rotary factors; else infinity."""
    text = config.get_text_config()
    kinds = list_rope_parameters(config)
    if not any(kind["rope_type"] == "longrope" for kind in kinds):
        return np.inf
    name = "original_max_position_embeddings"
    walls = [kind.get(name) for kind in kinds] + [getattr(text, name, None)]
    return min((wall for wall in walls if wall), default=np.inf)
