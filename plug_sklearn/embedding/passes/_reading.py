"""All prompts → all activations, by the shortest way that is exact."""

from collections.abc import Iterator, Sequence
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from plug_sklearn.embedding.passes._batches import pad_prompts, pad_tries, run_batches
from plug_sklearn.embedding.passes._forward import ForwardPass, States
from plug_sklearn.embedding.passes._lengths import (
    find_choice,
    find_wall,
    find_window,
)
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
Read = Iterator[tuple[Numbers, States | list[States]]]


class Way(Enum):
    """How texts are read, the shortest way first.

    Token tries; rows after a preamble that they share; padded batches; or batches of
    texts of equal length.
    """

    TRIES = "tries"
    PREAMBLE = "preamble"
    PADDED = "padded"
    ALIKE = "alike"


def read_activations(
    forward: ForwardPass,
    prompts: TokenizedPrompts,
    budget: int,
    way: Way,
    beyond: Way = Way.PADDED,
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
    beyond : Way, default=Way.PADDED
        The shortest way for texts longer than attention's window, where `way` is token
        tries: in a trie a token sees all its ancestors.

    Yields
    ------
    numbers : ndarray of shape (n,), int64
        Prompts of one batch; each prompt comes once, in no certain order.
    states : ndarray of shape (n, n_layers, n_parts * n_poolings, hidden_size), float32
        Their activations; a list of arrays of shape
        (n_tokens, n_layers, n_parts, hidden_size) where nothing is pooled.

    Raises
    ------
    NonFiniteStatesError
        If states overflowed their dtype or are not numbers.
    """
    for rows, states in _read_by_length(forward, prompts, budget, way, beyond):
        finite = np.array([np.isfinite(item).all() for item in states])
        if finite.all():
            yield rows, states
            continue
        if isinstance(states, list):
            yield rows[finite], [states[place] for place in np.flatnonzero(finite)]
        else:
            yield rows[finite], states[finite]
        # Texts of one pack share a row: an infinite value of one spreads to others,
        # though it has no weight in their attention.
        for single, alone in read_padded(forward, prompts, rows[~finite], budget):
            forward.check_finite(single, alone)
            yield single, alone


def _read_by_length(
    forward: ForwardPass, prompts: TokenizedPrompts, budget: int, way: Way, beyond: Way
) -> Read:
    lengths, numbers = prompts.lengths, np.arange(len(prompts))
    config = forward.loaded.model.config
    if way is not Way.ALIKE:
        fits = lengths <= find_choice(config)
        # Beyond the wall, rotary factors are others for all texts of a pass.
        wall = find_wall(config)
        short = numbers[fits & (lengths <= wall)]
        if way is Way.TRIES:
            windowed = lengths[short] > find_window(config)
            yield from read_tries(forward, prompts, short[~windowed], budget)
            short, way = short[windowed], beyond
        read = read_after_preambles if way is Way.PREAMBLE else read_padded
        yield from read(forward, prompts, short, budget)
        yield from read_padded(
            forward, prompts, numbers[fits & (lengths > wall)], budget
        )
        numbers = numbers[~fits]
    for length in np.unique(lengths[numbers]):
        alike = numbers[lengths[numbers] == length]
        yield from read_padded(forward, prompts, alike, budget)


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

    A prefix that many prompts share runs once, and the packs attend to it. With what
    it begins with, no pack is longer than attention's window, which some families
    count in places of the row.
    """
    if len(numbers) == 0:
        return
    window = find_window(forward.loaded.model.config)
    pack_nodes = int(min(pack_nodes, window))
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
            capacity = int(min(capacity, window - run.n_shared))
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


def read_after_preambles(
    forward: ForwardPass, prompts: TokenizedPrompts, numbers: Numbers, budget: int
) -> Read:
    """Read some prompts in rows; what many begin with runs once, and its cache serves.

    This is exact for windows, and for layers whose states run forward, such as linear
    attention: a cache holds all that later tokens need of earlier ones.
    """
    if len(numbers) == 0:
        return
    chosen = prompts.take(numbers)
    order, shared = sort_prompts(chosen)
    # A row is a pack of one prompt.
    for run in find_runs(chosen, order, shared, 1, budget):
        members = order[run.places]
        beginning = chosen.head(members[0], run.n_shared)
        if beginning is None:
            yield from read_padded(forward, prompts, numbers[members], budget)
            continue
        preamble = forward.run_preamble(beginning, own_cache=True)
        suffixes = chosen.take(members, skip=run.n_shared)
        for rows, states in _read_suffixes(forward, suffixes, preamble, budget):
            yield numbers[members[rows]], states


def _read_suffixes(
    forward: ForwardPass, prompts: TokenizedPrompts, preamble: Preamble, budget: int
) -> Read:
    """Read rows that come after one preamble."""

    def run(rows: NDArray[np.intp]) -> States | list[States]:
        batch = pad_prompts(prompts, rows.tolist(), forward.pad_id)
        return forward.run(batch, preamble)

    config = forward.loaded.model.config.get_text_config()
    sizes = (preamble.count_room(config.hidden_size) + prompts.lengths).tolist()
    for rows, states in run_batches(sizes, budget, run):
        n_kept = np.array([len(prompts.kept_of(row)) for row in rows])
        yield rows, preamble.join(states, forward.request.poolings, n_kept)


def _read_packs(
    forward: ForwardPass,
    prompts: TokenizedPrompts,
    shared: Numbers,
    packs: Sequence[Pack],
    preamble: Preamble | None,
    budget: int,
) -> Read:
    """Read packs of sorted prompts, all of them after one preamble or none."""

    def run(chosen: NDArray[np.intp]) -> States | list[States]:
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
            states = preamble.join(states, forward.request.poolings, n_kept)
        yield places, states
