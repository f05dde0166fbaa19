"""Read the activations of many prompts, batch by batch."""

from collections.abc import Iterator, Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from plug_sklearn.embedding.models import (
    find_attention_window,
    find_index_limit,
    find_rotary_threshold,
)
from plug_sklearn.embedding.passes._batching import (
    pad_prompts,
    pad_tries,
    run_batches,
)
from plug_sklearn.embedding.passes._forward import ForwardPass
from plug_sklearn.embedding.passes._pooling import (
    Numbers,
    States,
    join_pooled,
)
from plug_sklearn.embedding.passes._prefixes import (
    Pack,
    SharedPrefix,
    build_trie,
    fill_packs,
    group_by_prefix,
    pack_after,
    sort_prompts,
)
from plug_sklearn.embedding.prompts import (
    TokenizedPrompts,
)

#: Nodes in one token trie. Attention is quadratic in it, and a short shared prefix is
#: computed once for each trie.
PACK_NODES = 128

Read = Iterator[tuple[Numbers, States | list[States]]]


class Strategy(StrEnum):
    """How prompts share passes, fastest first."""

    TRIES = "tries"
    SHARED_PREFIX = "shared prefix"
    PADDED = "padded"
    EQUAL_LENGTH = "equal length"


def read_activations(
    forward: ForwardPass,
    prompts: TokenizedPrompts,
    budget: int,
    strategy: Strategy,
    beyond_window: Strategy = Strategy.PADDED,
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
    strategy : Strategy
        The fastest strategy that is exact for this model.
    beyond_window : Strategy, default=Strategy.PADDED
        Where `strategy` is token tries, the strategy for prompts longer than the
        attention window: in a trie a token attends to all its ancestors.

    Yields
    ------
    numbers : ndarray of shape (n,), int64
        Prompts of one batch; each prompt comes once, in no particular order.
    states : ndarray of shape (n, n_layers, n_parts * n_poolings, hidden_size), float32
        Their activations; a list of arrays of shape
        (n_tokens, n_layers, n_parts, hidden_size) where nothing is pooled.

    Raises
    ------
    NonFiniteStatesError
        If states overflow their dtype or are not numbers.
    """
    for rows, states in _read_by_length(
        forward, prompts, budget, strategy, beyond_window
    ):
        finite = np.array([np.isfinite(item).all() for item in states])
        if finite.all():
            yield rows, states
            continue
        if isinstance(states, list):
            yield rows[finite], [states[place] for place in np.flatnonzero(finite)]
        else:
            yield rows[finite], states[finite]
        # Prompts of one trie share a row: an infinite value of one spreads to others,
        # though it has no weight in their attention.
        for single, alone in read_padded(forward, prompts, rows[~finite], budget):
            forward.check_finite(single, alone)
            yield single, alone


def _read_by_length(
    forward: ForwardPass,
    prompts: TokenizedPrompts,
    budget: int,
    strategy: Strategy,
    beyond_window: Strategy,
) -> Read:
    lengths, numbers = prompts.lengths, np.arange(len(prompts))
    config = forward.loaded.model.config
    if strategy is not Strategy.EQUAL_LENGTH:
        paddable = lengths <= find_index_limit(config)
        # Above the threshold, all prompts of a pass get other rotary factors.
        is_short = lengths <= find_rotary_threshold(config)
        short = numbers[paddable & is_short]
        if strategy is Strategy.TRIES:
            windowed = lengths[short] > find_attention_window(config)
            yield from read_tries(forward, prompts, short[~windowed], budget)
            short, strategy = short[windowed], beyond_window
        shares = strategy is Strategy.SHARED_PREFIX
        read = read_after_prefixes if shares else read_padded
        yield from read(forward, prompts, short, budget)
        long = numbers[paddable & ~is_short]
        yield from read_padded(forward, prompts, long, budget)
        numbers = numbers[~paddable]
    for length in np.unique(lengths[numbers]):
        equal = numbers[lengths[numbers] == length]
        yield from read_padded(forward, prompts, equal, budget)


def read_padded(
    forward: ForwardPass, prompts: TokenizedPrompts, numbers: Numbers, budget: int
) -> Read:
    """Read some prompts in padded batches with a row for each."""
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
    """Read some prompts in token tries, where each distinct prefix runs once.

    A prefix that many prompts share runs by itself, and the tries attend to its cache.
    Prefix and trie together are no longer than the attention window, which some
    families count in places of the row.
    """
    if len(numbers) == 0:
        return
    window = find_attention_window(forward.loaded.model.config)
    pack_nodes = int(min(pack_nodes, window))
    chosen = prompts.take(numbers)
    order, shared = sort_prompts(chosen)
    for group in group_by_prefix(chosen, order, shared, pack_nodes, budget):
        members = order[group.places]
        common = np.maximum(shared[group.places] - group.n_shared, 0)
        common[0] = 0
        suffixes = chosen.take(members, skip=group.n_shared)
        beginning = chosen.head(members[0], group.n_shared)
        prefix, capacity = None, pack_nodes
        if beginning is not None:
            prefix = forward.run_prefix(beginning)
            capacity = pack_after(group.n_shared, pack_nodes)
            capacity = int(min(capacity, window - group.n_shared))
        packs = fill_packs(suffixes.lengths, common, capacity)
        if prefix is None:
            # A trie of one prompt is a row like any other, without a mask of its own.
            single = [pack.start for pack in packs if pack.stop == pack.start + 1]
            yield from read_padded(forward, prompts, numbers[members[single]], budget)
            packs = [pack for pack in packs if pack.stop > pack.start + 1]
        for places, states in _read_packs(
            forward, suffixes, common, packs, prefix, budget
        ):
            yield numbers[members[places]], states


def read_after_prefixes(
    forward: ForwardPass, prompts: TokenizedPrompts, numbers: Numbers, budget: int
) -> Read:
    """Read some prompts in rows that continue the cache of a shared prefix.

    This is exact for attention with a window and for recurrent layers: a cache holds
    all that later tokens need of earlier ones.
    """
    if len(numbers) == 0:
        return
    chosen = prompts.take(numbers)
    order, shared = sort_prompts(chosen)
    # A row is a pack of one prompt.
    for group in group_by_prefix(chosen, order, shared, 1, budget):
        members = order[group.places]
        beginning = chosen.head(members[0], group.n_shared)
        if beginning is None:
            yield from read_padded(forward, prompts, numbers[members], budget)
            continue
        prefix = forward.run_prefix(beginning, own_cache=True)
        suffixes = chosen.take(members, skip=group.n_shared)
        for rows, states in _read_suffixes(forward, suffixes, prefix, budget):
            yield numbers[members[rows]], states


def _read_suffixes(
    forward: ForwardPass, prompts: TokenizedPrompts, prefix: SharedPrefix, budget: int
) -> Read:
    """Read rows that come after one prefix."""

    def run(rows: NDArray[np.intp]) -> States | list[States]:
        batch = pad_prompts(prompts, rows.tolist(), forward.pad_id)
        return forward.run(batch, prefix)

    config = forward.loaded.model.config.get_text_config()
    n_cached = prefix.count_cached_tokens(config.hidden_size)
    sizes = (n_cached + prompts.lengths).tolist()
    for rows, states in run_batches(sizes, budget, run):
        yield rows, _join_prefix(forward, prompts, prefix, rows, states)


def _read_packs(
    forward: ForwardPass,
    prompts: TokenizedPrompts,
    shared: Numbers,
    packs: Sequence[Pack],
    prefix: SharedPrefix | None,
    budget: int,
) -> Read:
    """Read packs of sorted prompts, all of them after one prefix or none."""

    def run(chosen: NDArray[np.intp]) -> States | list[States]:
        tries = []
        for pack in (packs[number] for number in chosen):
            members = range(pack.start, pack.stop)
            common = [0, *shared[pack.start + 1 : pack.stop].tolist()]
            trie = build_trie([prompts.ids_of(member) for member in members], common)
            tries.append((members, trie))
        return forward.run(pad_tries(prompts, tries, forward.pad_id), prefix)

    # The prefix's keys and values take memory in each row.
    n_before = prefix.n_tokens if prefix else 0
    sizes = [n_before + pack.n_nodes for pack in packs]
    for chosen, states in run_batches(sizes, budget, run):
        places = np.concatenate(
            [np.arange(packs[number].start, packs[number].stop) for number in chosen]
        )
        if prefix is not None:
            states = _join_prefix(forward, prompts, prefix, places, states)
        yield places, states


def _join_prefix(
    forward: ForwardPass,
    prompts: TokenizedPrompts,
    prefix: SharedPrefix,
    numbers: NDArray[np.integer],
    states: States | list[States],
) -> States | list[States]:
    """Pool over the prefix as well as over what follows it."""
    if prefix.pooled is None:
        return states
    n_rest = np.array([len(prompts.kept_of(number)) for number in numbers])
    poolings = forward.request.poolings
    return join_pooled(poolings, prefix.pooled, prefix.n_kept, states, n_rest)
