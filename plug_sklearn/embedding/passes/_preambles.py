"""Prefixes that many prompts share, and what one pass over them leaves."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache

from plug_sklearn.embedding.passes._tries import fill_packs
from plug_sklearn.embedding.prompts._tokenized import TokenizedPrompts

Numbers = NDArray[np.int64]
States = NDArray[np.float32]

#: Lengths of preambles to look for, longest first: what some prompts share at length
#: is not given up for the few tokens that all share.
LENGTHS = (128, 32, 8, 1)
#: Tokens that a preamble must save, as a part of a batch's: a pass has its price.
LEAST_SAVED = 1 / 16


@dataclass(frozen=True)
class Run:
    """Neighbours among the sorted prompts, packed together.

    Attributes
    ----------
    places : slice
        Where they are in the sorted order.
    n_shared : int
        Tokens of their preamble; 0 for none.
    """

    places: slice
    n_shared: int


@dataclass(frozen=True)
class Preamble:
    """What the tokens of a run's prompts need of the preamble before them.

    Attributes
    ----------
    n_tokens : int
        Tokens in it.
    cache : DynamicCache
        What each layer keeps of it for one row.
    pooled : ndarray of shape (1, n_layers, n_parts * n_poolings, hidden_size), \
float32, or None
        Its pooled activations, or those of its kept tokens along axis 0 where nothing
        is pooled; None where none of its tokens is kept.
    n_kept : int
        How many of its tokens are kept.
    """

    n_tokens: int
    cache: DynamicCache
    pooled: States | None
    n_kept: int

    def count_room(self, hidden_size: int) -> int:
        """Count the tokens whose keys and values would take the cache's room.

        A layer with a window keeps fewer than all tokens, one with states none; keys
        and values that heads share are smaller than the hidden size.
        """
        sizes = [
            sum(_count_numbers(value) for value in vars(layer).values())
            for layer in self.cache.layers
        ]
        # Layers deeper than what is read keep nothing.
        n_filled = max(1, sum(size > 0 for size in sizes))
        return math.ceil(sum(sizes) / (2 * hidden_size * n_filled))

    def repeat_cache(self, n_rows: int) -> DynamicCache:
        """Copy the cache for a number of rows; a pass changes its cache."""
        repeated: DynamicCache = _repeat_attributes(self.cache, n_rows)
        repeated.layers = [
            _repeat_attributes(layer, n_rows) for layer in self.cache.layers
        ]
        return repeated

    def join(
        self,
        states: States | list[States],
        poolings: Sequence[str] | None,
        n_kept: Numbers,
    ) -> States | list[States]:
        """Pool over the preamble as well as what follows it.

        Parameters
        ----------
        states : ndarray of shape (n_prompts, n_layers, n_parts * n_poolings, \
hidden_size), float32
            Pooled over the tokens after the preamble; or a list of arrays of shape
            (n_tokens, n_layers, n_parts, hidden_size) where nothing is pooled.
        poolings : sequence of str, or None
            How.
        n_kept : ndarray of shape (n_prompts,), int64
            Over how many of them.

        Returns
        -------
        ndarray or list of ndarray
            As ``states``, over both.
        """
        before = self.pooled
        if before is None:
            return states
        if poolings is None:
            return [np.concatenate([before, after]) for after in states]
        joined = np.array(states)
        weight = (self.n_kept / (self.n_kept + n_kept)).astype(np.float32)
        weight = weight[:, None, None, None]
        for number, name in enumerate(poolings):
            # Each part holds all poolings, one after the other.
            own = np.s_[:, :, number :: len(poolings)]
            if name == "first":
                joined[own] = before[own]
            elif name == "max":
                joined[own] = np.maximum(before[own], joined[own])
            elif name == "mean":
                joined[own] = weight * before[own] + (1 - weight) * joined[own]
        return joined


def _repeat_attributes(owner: Any, n_rows: int) -> Any:  # noqa: ANN401 - of many classes
    repeated = copy.copy(owner)
    for name, value in vars(owner).items():
        # Keys and values are joined with later ones, and states are written to.
        setattr(repeated, name, _repeat(value, n_rows, name in ("keys", "values")))
    return repeated


def _repeat(value: Any, n_rows: int, expands: bool) -> Any:  # noqa: ANN401 - as above
    if isinstance(value, Tensor) and value.dim() > 1 and len(value) == 1:
        shape = (n_rows, *value.shape[1:])
        return value.expand(shape) if expands else value.expand(shape).clone()
    if isinstance(value, dict):
        return {key: _repeat(one, n_rows, False) for key, one in value.items()}
    if isinstance(value, list):
        return [_repeat(one, n_rows, False) for one in value]
    return value


def _count_numbers(value: object) -> int:
    if isinstance(value, Tensor):
        return value.numel()
    if isinstance(value, dict):
        return sum(_count_numbers(one) for one in value.values())
    return sum(map(_count_numbers, value)) if isinstance(value, list) else 0


def find_runs(
    prompts: TokenizedPrompts,
    order: Numbers,
    shared: Numbers,
    pack_nodes: int,
    budget: int,
) -> list[Run]:
    """Cut sorted prompts into runs that share a preamble, and runs that share none.

    Parameters
    ----------
    prompts : TokenizedPrompts
        All prompts.
    order, shared : ndarray of shape (n_prompts,), int64
        Prompts in sorted order, and the tokens each shares with the one before.
    pack_nodes : int
        Nodes in one pack.
    budget : int
        Tokens in one batch.

    Returns
    -------
    list of Run
        In sorted order, every prompt in one.
    """
    least_saved = LEAST_SAVED * budget

    def cut(run: Run, least: int) -> list[Run]:
        if run.n_shared:
            return [run]
        first, end = run.places.start, run.places.stop
        inside = first + 1 + np.flatnonzero(shared[first + 1 : end] < least)
        pieces: list[Run] = []
        for start, stop in pairwise([first, *inside.tolist(), end]):
            places = slice(start, stop)
            n_shared = _measure_preamble(
                prompts, order[places], shared[places], pack_nodes, least_saved
            )
            if pieces and n_shared == pieces[-1].n_shared == 0:
                # Pieces without a preamble fill packs together.
                places = slice(pieces.pop().places.start, stop)
            pieces.append(Run(places, n_shared))
        return pieces

    runs = [Run(slice(0, len(order)), 0)]
    for least in LENGTHS:
        runs = [piece for run in runs for piece in cut(run, least)]
    return runs


def pack_after(n_shared: int, pack_nodes: int) -> int:
    """Choose the nodes in a pack after a preamble.

    Its keys and values are copied for each pack: the longer it is, the fewer there are.
    """
    return min(max(pack_nodes, n_shared), 2 * pack_nodes)


def _measure_preamble(
    prompts: TokenizedPrompts,
    numbers: Numbers,
    shared: Numbers,
    pack_nodes: int,
    least_saved: float,
) -> int:
    """Count the tokens of a run's preamble; 0 where a pass over it would not pay."""
    if len(numbers) == 1:
        return 0
    lengths = prompts.lengths[numbers]
    # Each prompt keeps a token of its own.
    n_shared = int(min(shared[1:].min(), lengths.min() - 1))
    if n_shared == 0:
        return 0
    common = np.concatenate([[n_shared], shared[1:]])
    after = fill_packs(
        lengths - n_shared, common - n_shared, pack_after(n_shared, pack_nodes)
    )
    n_with = n_shared + sum(pack.n_nodes for pack in after)
    n_without = sum(pack.n_nodes for pack in fill_packs(lengths, common, pack_nodes))
    if n_without - n_with < least_saved:
        return 0
    kept = [prompts.kept[prompts.starts[n] : prompts.starts[n + 1]] for n in numbers]
    # Pooled alike in the preamble, and after it over at least one token.
    fits = all(
        (tokens[:n_shared] == kept[0][:n_shared]).all() and tokens[n_shared:].any()
        for tokens in kept
    )
    return n_shared if fits else 0
