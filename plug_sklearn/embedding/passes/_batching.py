"""Group prompts into batches, and make the arrays of each forward pass."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from plug_sklearn.embedding.passes._prefixes import Trie
from plug_sklearn.embedding.prompts import (
    TokenizedPrompts,
)

Numbers = NDArray[np.int64]
Values = TypeVar("Values")

#: The largest fraction of a batch's tokens that may be padding. A batch that fills less
#: than LEAST_FILLING of the budget may hold more: another pass would cost more.
MOST_PADDING = 0.05
LEAST_FILLING = 0.125


@dataclass(frozen=True)
class Batch:
    """The input of one forward pass, and which of its tokens are pooled.

    Attributes
    ----------
    ids : ndarray of shape (n_rows, n_tokens), int64
        Token ids, padded on the right: every model family reads right padding alike.
    mask : ndarray of shape (n_rows, n_tokens) or (n_rows, n_tokens, n_tokens), bool
        Where there is a token; for tries, which tokens (axis 2) each token attends to.
    positions : ndarray of shape (n_rows, n_tokens), int64, or None
        Depths in the tries; None where tokens stand one after another.
    kept : ndarray of shape (n_kept,), int64
        The tokens that are pooled, as positions in the flattened ``ids``, prompt by
        prompt.
    offsets : ndarray of shape (n_prompts,), int64
        Where each prompt's tokens begin in ``kept``; each prompt has at least one.
    """

    ids: Numbers
    mask: NDArray[np.bool_]
    positions: Numbers | None
    kept: Numbers
    offsets: Numbers


def pad_prompts(
    prompts: TokenizedPrompts,
    numbers: Sequence[int],
    pad_id: int,
    row_multiple: int = 1,
) -> Batch:
    """Make a padded batch with a row for each prompt.

    The length of the rows is a multiple of ``row_multiple``.
    """
    all_ids = [prompts.ids_of(number) for number in numbers]
    longest = max(len(ids) for ids in all_ids)
    shape = (len(all_ids), longest + -longest % row_multiple)
    padded = np.full(shape, pad_id, dtype=np.int64)
    mask = np.zeros(shape, dtype=bool)
    kept = []
    for row, (number, ids) in enumerate(zip(numbers, all_ids, strict=True)):
        padded[row, : len(ids)] = ids
        mask[row, : len(ids)] = True
        kept.append(row * shape[1] + prompts.kept_of(number))
    return Batch(padded, mask, None, *_join(kept))


def pad_tries(
    prompts: TokenizedPrompts,
    packs: Sequence[tuple[Sequence[int], Trie]],
    pad_id: int,
) -> Batch:
    """Make a batch with a row for each pack: its prompts' numbers and their trie.

    The mask lets each node attend to its ancestors and to itself.
    """
    shape = (len(packs), max(len(trie.ids) for _, trie in packs))
    places = np.arange(shape[1])
    padded = np.full(shape, pad_id, dtype=np.int64)
    positions = np.zeros(shape, dtype=np.int64)
    # Padding sees itself: a row of attention without a token would not be a number.
    ends = np.tile(places + 1, (shape[0], 1))
    kept = []
    for row, (numbers, trie) in enumerate(packs):
        n_nodes = len(trie.ids)
        padded[row, :n_nodes] = trie.ids
        positions[row, :n_nodes] = trie.depths
        ends[row, :n_nodes] = trie.ends
        kept += [
            row * shape[1] + path[prompts.kept_of(number)]
            for number, path in zip(numbers, trie.paths, strict=True)
        ]
    below = places[:, None] < ends[:, None, :]
    mask = below & (places[:, None] >= places[None, :])
    return Batch(padded, mask, positions, *_join(kept))


def _join(kept: list[Numbers]) -> tuple[Numbers, Numbers]:
    counts = [len(tokens) for tokens in kept]
    return np.concatenate(kept), np.cumsum([0, *counts[:-1]])


def plan_batches(sizes: Sequence[int], budget: int) -> list[NDArray[np.intp]]:
    """Group rows of similar size so that each padded batch stays within a budget.

    Parameters
    ----------
    sizes : sequence of int
        Tokens in each row.
    budget : int
        Tokens in one batch, padding included. A larger row goes alone.

    Returns
    -------
    list of ndarray of int
        Positions in ``sizes``, batch by batch, each position once. The largest come
        first: if they fit in memory, so does the rest.

    Examples
    --------
    >>> [rows.tolist() for rows in plan_batches([3, 9, 4, 3], budget=9)]
    [[1], [2], [0, 3]]
    """
    if not len(sizes):
        return []
    order = np.argsort(-np.asarray(sizes), kind="stable")
    batches, first, used = [], 0, 0
    for place, row in enumerate(order):
        n_rows = place - first + 1
        padded = n_rows * sizes[order[first]]
        padding = 1 - (used + sizes[row]) / padded
        wasteful = padding > MOST_PADDING and used >= budget * LEAST_FILLING
        if place > first and (padded > budget or wasteful):
            batches.append(order[first:place])
            first, used = place, 0
        used += sizes[row]
    batches.append(order[first:])
    return batches


def run_batches(
    sizes: Sequence[int], budget: int, run: Callable[[NDArray[np.intp]], Values]
) -> Iterator[tuple[NDArray[np.intp], Values]]:
    """Plan batches and run each; halve the budget each time that memory runs out.

    ``run`` maps positions in ``sizes`` to values. Yields both, batch by batch.
    """
    waiting = deque(plan_batches(sizes, budget))
    while waiting:
        rows = waiting.popleft()
        values = _run_unless_out_of_memory(run, rows)
        if values is not None:
            yield rows, values
            continue
        left = np.concatenate([rows, *waiting])
        budget = len(rows) * sizes[rows[0]] // 2
        planned = plan_batches([sizes[row] for row in left], budget)
        waiting = deque(left[batch] for batch in planned)


def _run_unless_out_of_memory(
    run: Callable[[NDArray[np.intp]], Values], rows: NDArray[np.intp]
) -> Values | None:
    try:
        return run(rows)
    except RuntimeError as error:
        # CUDA has a class for it; MPS and the CPU's allocator only say so.
        message = str(error).lower()
        ran_out = "out of memory" in message or "can't allocate memory" in message
        if not ran_out or len(rows) == 1:
            raise
    # The error is gone here, and with it the tensors that its frames held.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None
