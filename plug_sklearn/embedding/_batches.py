"""Token ids → padded batches."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

Rows = NDArray[np.intp]
Values = TypeVar("Values")


def plan_batches(lengths: Sequence[int], budget: int) -> list[Rows]:
    """Group prompts of like length so that a padded batch stays within a budget.

    Parameters
    ----------
    lengths : sequence of int
        Tokens in each prompt.
    budget : int
        Tokens in one batch, padding included. A longer prompt goes alone.

    Returns
    -------
    list of ndarray of int
        Positions in ``lengths``, batch by batch, each position once. The longest come
        first: if they fit in memory, so does the rest.

    Examples
    --------
    >>> [rows.tolist() for rows in plan_batches([3, 9, 4, 3], budget=9)]
    [[1], [2, 0], [3]]
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    batches, start = [], 0
    while start < len(order):
        longest = lengths[order[start]]
        size = max(1, budget // longest)
        batches.append(order[start : start + size])
        start += size
    return batches


def pad_ids(
    ids: Sequence[NDArray[np.int64]], pad_id: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pad prompts on the right, where every family of models reads them alike.

    Returns
    -------
    padded : ndarray of shape (n_prompts, n_tokens)
        Token ids.
    mask : ndarray of shape (n_prompts, n_tokens)
        1 where there is a token, 0 where there is padding.

    Examples
    --------
    >>> padded, mask = pad_ids([np.array([5, 6]), np.array([7])], pad_id=0)
    >>> padded
    array([[5, 6],
           [7, 0]])
    >>> mask
    array([[1, 1],
           [1, 0]])
    """
    shape = (len(ids), max(len(row) for row in ids))
    padded = np.full(shape, pad_id, dtype=np.int64)
    mask = np.zeros(shape, dtype=np.int64)
    for row, row_ids in enumerate(ids):
        padded[row, : len(row_ids)] = row_ids
        mask[row, : len(row_ids)] = 1
    return padded, mask


def run_batches(
    lengths: Sequence[int], budget: int, run: Callable[[Rows], Values]
) -> Iterator[tuple[Rows, Values]]:
    """Run planned batches, with smaller ones where memory runs out.

    Parameters
    ----------
    lengths : sequence of int
        Tokens in each prompt.
    budget : int
        Tokens in one batch; halved each time that memory runs out.
    run : callable
        Takes the positions of one batch.

    Yields
    ------
    rows : ndarray of int
        Positions in ``lengths``.
    values : object
        What ``run`` gave for them.
    """
    waiting = deque(plan_batches(lengths, budget))
    while waiting:
        rows = waiting.popleft()
        values = _run_unless_out_of_memory(run, rows)
        if values is not None:
            yield rows, values
            continue
        left = np.concatenate([rows, *waiting])
        budget = len(rows) * lengths[rows[0]] // 2
        planned = plan_batches([lengths[row] for row in left], budget)
        waiting = deque(left[batch] for batch in planned)


def _run_unless_out_of_memory(
    run: Callable[[Rows], Values], rows: Rows
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
