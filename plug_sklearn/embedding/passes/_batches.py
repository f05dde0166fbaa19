"""Packs → the arrays of one forward pass."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from plug_sklearn.embedding.passes._tries import Trie
from plug_sklearn.embedding.prompts._tokenized import TokenizedPrompts

Numbers = NDArray[np.int64]
Values = TypeVar("Values")

#: Padding that a batch may hold, as a part of its tokens,
MOST_PADDING = 0.05
#: unless it is so small a part of the budget that cutting it would cost more.
LEAST_FILLING = 0.125


@dataclass(frozen=True)
class Batch:
    """The input of one forward pass, and where in its output each prompt is pooled.

    Attributes
    ----------
    ids : ndarray of shape (n_rows, n_tokens), int64
        Token ids, padded on the right, where every family of models reads them alike.
    mask : ndarray of shape (n_rows, n_tokens) or (n_rows, n_tokens, n_tokens), bool
        Where there is a token; or, for tries, which tokens (axis 2) each one sees.
    positions : ndarray of shape (n_rows, n_tokens), int64, or None
        Depths in the tries; None where tokens stand one after another.
    pooled : ndarray of shape (n_pooled,), int64
        The tokens that are pooled, as positions in the flattened ``ids``, prompt by
        prompt in the order of the packs.
    offsets : ndarray of shape (n_prompts,), int64
        Where each prompt's tokens begin in ``pooled``; no prompt's are empty.
    """

    ids: Numbers
    mask: NDArray[np.bool_]
    positions: Numbers | None
    pooled: Numbers
    offsets: Numbers


def pad_prompts(
    prompts: TokenizedPrompts,
    numbers: Sequence[int],
    pad_id: int,
    row_multiple: int = 1,
) -> Batch:
    """Make a batch with a row for each prompt, as long as a multiple of some number."""
    all_ids = [prompts.ids_of(number) for number in numbers]
    longest = max(len(ids) for ids in all_ids)
    shape = (len(all_ids), longest + -longest % row_multiple)
    padded = np.full(shape, pad_id, dtype=np.int64)
    mask = np.zeros(shape, dtype=bool)
    pooled = []
    for row, (number, ids) in enumerate(zip(numbers, all_ids, strict=True)):
        padded[row, : len(ids)] = ids
        mask[row, : len(ids)] = True
        pooled.append(row * shape[1] + prompts.kept_of(number))
    return Batch(padded, mask, None, *_join(pooled))


def pad_tries(
    prompts: TokenizedPrompts,
    packs: Sequence[tuple[Sequence[int], Trie]],
    pad_id: int,
) -> Batch:
    """Make a batch with a row for each pack.

    Parameters
    ----------
    prompts : TokenizedPrompts
        All prompts.
    packs : sequence of (sequence of int, Trie)
        For each pack, its prompts' numbers and their trie.
    pad_id : int
        Fills the rows.

    Returns
    -------
    Batch
        Whose mask shows each node its ancestors and itself.
    """
    shape = (len(packs), max(len(trie.ids) for _, trie in packs))
    places = np.arange(shape[1])
    padded = np.full(shape, pad_id, dtype=np.int64)
    positions = np.zeros(shape, dtype=np.int64)
    # Padding sees itself: a row of attention without a token would not be a number.
    ends = np.tile(places + 1, (shape[0], 1))
    pooled = []
    for row, (numbers, trie) in enumerate(packs):
        n_nodes = len(trie.ids)
        padded[row, :n_nodes] = trie.ids
        positions[row, :n_nodes] = trie.depths
        ends[row, :n_nodes] = trie.ends
        pooled += [
            row * shape[1] + path[prompts.kept_of(number)]
            for number, path in zip(numbers, trie.paths, strict=True)
        ]
    below = places[:, None] < ends[:, None, :]
    mask = below & (places[:, None] >= places[None, :])
    return Batch(padded, mask, positions, *_join(pooled))


def _join(pooled: list[Numbers]) -> tuple[Numbers, Numbers]:
    counts = [len(tokens) for tokens in pooled]
    return np.concatenate(pooled), np.cumsum([0, *counts[:-1]])


def plan_batches(sizes: Sequence[int], budget: int) -> list[NDArray[np.intp]]:
    """Group packs of like size so that a padded batch stays within a budget.

    Parameters
    ----------
    sizes : sequence of int
        Tokens in each pack.
    budget : int
        Tokens in one batch, padding included. A larger pack goes alone.

    Returns
    -------
    list of ndarray of int
        Positions in ``sizes``, batch by batch, each position once. The largest come
        first: if they fit in memory, so does the rest.

    Examples
    --------
    >>> [packs.tolist() for packs in plan_batches([3, 9, 4, 3], budget=9)]
    [[1], [2], [0, 3]]
    """
    if not len(sizes):
        return []
    order = np.argsort(-np.asarray(sizes), kind="stable")
    batches, first, used = [], 0, 0
    for place, pack in enumerate(order):
        n_rows = place - first + 1
        padded = n_rows * sizes[order[first]]
        padding = 1 - (used + sizes[pack]) / padded
        wasteful = padding > MOST_PADDING and used >= budget * LEAST_FILLING
        if place > first and (padded > budget or wasteful):
            batches.append(order[first:place])
            first, used = place, 0
        used += sizes[pack]
    batches.append(order[first:])
    return batches


def run_batches(
    sizes: Sequence[int], budget: int, run: Callable[[NDArray[np.intp]], Values]
) -> Iterator[tuple[NDArray[np.intp], Values]]:
    """Run planned batches, with smaller ones where memory runs out.

    Parameters
    ----------
    sizes : sequence of int
        Tokens in each pack.
    budget : int
        Tokens in one batch; halved each time that memory runs out.
    run : callable
        Takes the positions of one batch's packs.

    Yields
    ------
    packs : ndarray of int
        Positions in ``sizes``.
    values : object
        What ``run`` gave for them.
    """
    waiting = deque(plan_batches(sizes, budget))
    while waiting:
        packs = waiting.popleft()
        values = _run_unless_out_of_memory(run, packs)
        if values is not None:
            yield packs, values
            continue
        left = np.concatenate([packs, *waiting])
        budget = len(packs) * sizes[packs[0]] // 2
        planned = plan_batches([sizes[pack] for pack in left], budget)
        waiting = deque(left[batch] for batch in planned)


def _run_unless_out_of_memory(
    run: Callable[[NDArray[np.intp]], Values], packs: NDArray[np.intp]
) -> Values | None:
    try:
        return run(packs)
    except RuntimeError as error:
        # CUDA has a class for it; MPS and the CPU's allocator only say so.
        message = str(error).lower()
        ran_out = "out of memory" in message or "can't allocate memory" in message
        if not ran_out or len(packs) == 1:
            raise
    # The error is gone here, and with it the tensors that its frames held.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None
