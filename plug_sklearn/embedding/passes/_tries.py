"""Prompts → packs of token tries, so that a shared prefix is computed once.

In a causal model, equal prefixes have equal states. A pack is a trie of token ids laid
out in one row: each distinct prefix is one node; its position id is its depth, and it
attends to its ancestors and to itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from plug_sklearn.embedding.prompts._tokenized import Ids, TokenizedPrompts

Rows = NDArray[np.int64]


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
    depths: NDArray[np.int64]
    ends: NDArray[np.int64]
    paths: list[NDArray[np.int64]]


def sort_prompts(prompts: TokenizedPrompts) -> tuple[Rows, NDArray[np.int64]]:
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
    n_bytes = min(len(one), len(other))
    a = np.frombuffer(one, dtype=np.uint32, count=n_bytes // 4)
    b = np.frombuffer(other, dtype=np.uint32, count=n_bytes // 4)
    differs = a != b
    return int(differs.argmax()) if differs.any() else n_bytes // 4


@dataclass(frozen=True)
class Pack:
    """Neighbours among sorted prompts that go in one trie.

    Attributes
    ----------
    start, stop : int
        Their range in the sorted order.
    n_nodes : int
        Their distinct prefixes.
    """

    start: int
    stop: int
    n_nodes: int


def fill_packs(
    lengths: NDArray[np.int64], shared: NDArray[np.int64], capacity: int
) -> list[Pack]:
    """Cut sorted prompts into packs of at most ``capacity`` nodes.

    Parameters
    ----------
    lengths, shared : ndarray of shape (n_prompts,), int64
        In sorted order, the prompts' tokens and what they share with the one before.
    capacity : int
        Nodes in one pack. A longer prompt has a pack of its own.

    Returns
    -------
    list of Pack
        Every prompt in one, in sorted order.

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


def build_trie(prompts: Sequence[Ids], shared: Sequence[int]) -> Trie:
    """Lay out sorted prompts as one trie.

    Parameters
    ----------
    prompts : sequence of ndarray of int32
        Token ids, in sorted order.
    shared : sequence of int
        Tokens that each shares with the one before; the first shares none.

    Returns
    -------
    Trie
        Every distinct prefix once.

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
    paths: list[NDArray[np.int64]] = []
    path = np.empty(0, dtype=np.int64)
    count = 0
    for ids, common in zip(new_ids, shared, strict=True):
        # What lies below the common prefix gets no more children.
        ends[path[common:]] = count
        path = np.concatenate([path[:common], np.arange(count, count + len(ids))])
        paths.append(path)
        count += len(ids)
    return Trie(np.concatenate(new_ids), np.concatenate(new_depths), ends, paths)
