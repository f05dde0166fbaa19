"""Find the prefixes that prompts share, so that each is computed once.

In a causal model equal prefixes have equal states. There are two ways to use this:

- A *trie* holds several prompts in one row, each distinct prefix as one node. Its
  position id is its depth; it attends to its ancestors and to itself.
- A *shared prefix*, which many prompts begin with, runs by itself. Its KV cache, or the
  state that a recurrent layer keeps, then serves every prompt that begins with it.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor
from transformers import DynamicCache

from plug_sklearn.embedding.passes._pooling import Numbers, States
from plug_sklearn.embedding.prompts import (
    Ids,
    TokenizedPrompts,
)

#: Least lengths of shared prefixes to look for, longest first: a long prefix of some
#: prompts is not given up for a short one that all of them share.
LENGTHS = (128, 32, 8, 1)
#: The least saving that makes a shared prefix worth a pass of its own, as a fraction of
#: a batch's tokens.
LEAST_SAVED = 1 / 16
#: What caches keep of each row along another axis than the first.
_ROW_AXES = {"indexer_position_ids": 1}


def sort_prompts(prompts: TokenizedPrompts) -> tuple[Numbers, Numbers]:
    """Sort prompts by their token ids, and count what neighbours share.

    Returns
    -------
    order : ndarray of shape (n_prompts,), int64
        Prompts, so that those with a common prefix stand together.
    shared : ndarray of shape (n_prompts,), int64
        Tokens that each prompt, in that order, shares with the one before; 0 for the
        first.
    """
    # Big-endian bytes sort as the numbers do, and compare without a loop in Python.
    big_endian = prompts.ids.astype(">u4")
    keys = [big_endian[start:end].tobytes() for start, end in pairwise(prompts.starts)]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    shared = [0, *(_count_shared(keys[a], keys[b]) for a, b in pairwise(order))]
    return np.array(order), np.array(shared)


def _count_shared(one: bytes, other: bytes) -> int:
    """Count the leading 4-byte tokens that two keys have in common."""
    n_tokens = min(len(one), len(other)) // 4
    a = np.frombuffer(one, dtype=np.uint32, count=n_tokens)
    b = np.frombuffer(other, dtype=np.uint32, count=n_tokens)
    differs = a != b
    return int(differs.argmax()) if differs.any() else n_tokens


@dataclass(frozen=True)
class Trie:
    """Some prompts' distinct prefixes, parents before children.

    Attributes
    ----------
    ids : ndarray of shape (n_nodes,), int32
        The last token of each prefix.
    depths : ndarray of shape (n_nodes,), int64
        Tokens before it.
    ends : ndarray of shape (n_nodes,), int64
        Where each node's subtree ends: node i is at or below node j if
        ``j <= i < ends[j]``.
    paths : list of ndarray
        For each prompt, the nodes of its tokens, in order.
    """

    ids: Ids
    depths: Numbers
    ends: Numbers
    paths: list[Numbers]


def build_trie(prompts: Sequence[Ids], shared: Sequence[int]) -> Trie:
    """Lay out sorted prompts as one trie.

    ``shared`` counts the tokens that each prompt shares with the one before it.

    Examples
    --------
    >>> trie = build_trie([np.array([5, 6]), np.array([5, 7])], shared=[0, 1])
    >>> trie.ids, trie.depths, trie.ends
    (array([5, 6, 7]), array([0, 1, 1]), array([3, 2, 3]))
    >>> trie.paths
    [array([0, 1]), array([0, 2])]
    """
    new_ids = [ids[common:] for ids, common in zip(prompts, shared, strict=True)]
    new_depths = [
        np.arange(common, len(ids)) for ids, common in zip(prompts, shared, strict=True)
    ]
    n_nodes = sum(len(ids) for ids in new_ids)
    ends = np.full(n_nodes, n_nodes)
    paths: list[Numbers] = []
    path = np.empty(0, dtype=np.int64)
    count = 0
    for ids, common in zip(new_ids, shared, strict=True):
        # What lies below the common prefix gets no more children.
        ends[path[common:]] = count
        path = np.concatenate([path[:common], np.arange(count, count + len(ids))])
        paths.append(path)
        count += len(ids)
    return Trie(np.concatenate(new_ids), np.concatenate(new_depths), ends, paths)


@dataclass(frozen=True)
class Pack:
    """Neighbours among sorted prompts that go into one trie.

    ``start`` and ``stop`` are their range in the sorted order, and ``n_nodes`` counts
    their distinct prefixes.
    """

    start: int
    stop: int
    n_nodes: int


def fill_packs(lengths: Numbers, shared: Numbers, capacity: int) -> list[Pack]:
    """Cut sorted prompts into packs of at most ``capacity`` nodes.

    A longer prompt gets a pack of its own. ``lengths`` are the prompts' tokens, and
    ``shared`` counts those that each shares with the one before.

    Examples
    --------
    >>> fill_packs(np.array([3, 3, 4]), np.array([0, 2, 1]), capacity=4)
    [Pack(start=0, stop=2, n_nodes=4), Pack(start=2, stop=3, n_nodes=4)]
    """
    packs, first, n_nodes = [], 0, 0
    for place, (length, common) in enumerate(
        zip(lengths.tolist(), shared.tolist(), strict=True)
    ):
        added = length - common
        if place > first and n_nodes + added > capacity:
            packs.append(Pack(first, place, n_nodes))
            first, n_nodes = place, 0
        n_nodes += length if place == first else added
    packs.append(Pack(first, len(lengths), n_nodes))
    return packs


@dataclass(frozen=True)
class SharedPrefix:
    """What a pass over a shared prefix leaves for the prompts that begin with it.

    Attributes
    ----------
    n_tokens : int
        Its length.
    cache : DynamicCache
        What each layer keeps of it, for one row.
    pooled : ndarray of shape (1, n_layers, n_parts * n_poolings, hidden_size), \
float32, or None
        Its pooled activations, or those of its kept tokens along axis 0 where nothing
        is pooled; None where none of its tokens is kept.
    n_kept : int
        How many of its tokens are pooled.
    """

    n_tokens: int
    cache: DynamicCache
    pooled: States | None
    n_kept: int

    def count_cached_tokens(self, hidden_size: int) -> int:
        """Count the tokens whose keys and values would fill the cache's memory.

        Layers with a window keep fewer than all tokens, and recurrent ones a state;
        keys and values that heads share are smaller than the hidden size.
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


def _repeat_attributes(owner: Any, n_rows: int) -> Any:  # noqa: ANN401 - of many classes
    repeated = copy.copy(owner)
    for name, value in vars(owner).items():
        if name in _ROW_AXES and isinstance(value, Tensor):
            copied = value.repeat_interleave(n_rows, dim=_ROW_AXES[name])
        else:
            # Keys and values are joined with later ones, and states are written to.
            copied = _repeat(value, n_rows, name in ("keys", "values"))
        setattr(repeated, name, copied)
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


@dataclass(frozen=True)
class PrefixGroup:
    """Neighbours among sorted prompts that are read together.

    ``places`` is their range in the sorted order, and ``n_shared`` the length of the
    prefix that runs once for all of them; 0 for none.
    """

    places: slice
    n_shared: int


def group_by_prefix(
    prompts: TokenizedPrompts,
    order: Numbers,
    shared: Numbers,
    pack_nodes: int,
    budget: int,
) -> list[PrefixGroup]:
    """Cut sorted prompts into groups that share a prefix, and groups that share none.

    Parameters
    ----------
    prompts : TokenizedPrompts
        All prompts.
    order, shared : ndarray of shape (n_prompts,), int64
        What ``sort_prompts`` gave for them.
    pack_nodes : int
        Nodes in one trie; 1 for a row per prompt.
    budget : int
        Tokens in one batch.

    Returns
    -------
    list of PrefixGroup
        In sorted order; every prompt is in one group.
    """
    least_saved = LEAST_SAVED * budget

    def cut(group: PrefixGroup, least: int) -> list[PrefixGroup]:
        if group.n_shared:
            return [group]
        first, end = group.places.start, group.places.stop
        inside = first + 1 + np.flatnonzero(shared[first + 1 : end] < least)
        pieces: list[PrefixGroup] = []
        for start, stop in pairwise([first, *inside.tolist(), end]):
            places = slice(start, stop)
            n_shared = _measure_prefix(
                prompts, order[places], shared[places], pack_nodes, least_saved
            )
            if pieces and n_shared == pieces[-1].n_shared == 0:
                # Neighbours without a shared prefix fill packs together.
                places = slice(pieces.pop().places.start, stop)
            pieces.append(PrefixGroup(places, n_shared))
        return pieces

    groups = [PrefixGroup(slice(0, len(order)), 0)]
    for least in LENGTHS:
        groups = [piece for group in groups for piece in cut(group, least)]
    return groups


def pack_after(n_shared: int, pack_nodes: int) -> int:
    """Choose the nodes in a pack after a shared prefix.

    Its keys and values are copied for each pack: the longer it is, the fewer packs.
    """
    return min(max(pack_nodes, n_shared), 2 * pack_nodes)


def _measure_prefix(
    prompts: TokenizedPrompts,
    numbers: Numbers,
    shared: Numbers,
    pack_nodes: int,
    least_saved: float,
) -> int:
    """Count the tokens of some prompts' prefix; 0 where a pass over it does not pay."""
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
    # The same tokens of the prefix must be pooled for all, and one after it for each.
    fits = all(
        (tokens[:n_shared] == kept[0][:n_shared]).all() and tokens[n_shared:].any()
        for tokens in kept
    )
    return n_shared if fits else 0
