"""Prompts that a store lacks → activations, the work shared with all that want them."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from plug_sklearn.embedding._store import ActivationStore

Numbers = NDArray[np.int64]
States = NDArray[np.float32]


def fill_activations(
    store: ActivationStore,
    settings: bytes,
    digests: Sequence[bytes],
    layers: Sequence[int],
    parts: Sequence[str],
    out: States,
    compute: Callable[[Numbers], Iterable[tuple[Numbers, States]]],
    at_most: int | None = None,
) -> None:
    """Fill an array from a store, computing what neither it nor anyone else has.

    Parameters
    ----------
    store : ActivationStore
        The store, open for writing.
    settings : bytes
        What ``store.register`` gave.
    digests : sequence of bytes
        The prompt of each row.
    layers : sequence of int
        Layers along axis 1.
    parts : sequence of str
        Parts along axis 2.
    out : ndarray of shape (n, n_layers, n_parts, hidden_size), float32
        Is filled.
    compute : callable
        Takes rows, whose prompts are distinct, and gives for each batch of them the
        rows and their states of shape (n_batch, n_layers, n_parts, hidden_size). Each
        batch is written, so that large ones are cheaper. It is called again for what
        another process gave up.
    at_most : int, default=None
        Rows to compute at a time; the fewer, the better processes that want the same
        prompts share them. None is all that no one else computes.

    Raises
    ------
    StoreError
        If the store cannot be read or written.
    """
    missing = store.read_into(settings, digests, layers, parts, out)
    rows: Numbers = np.flatnonzero(missing.any(axis=(1, 2)))
    while len(rows):
        wanted = [digests[row] for row in rows.tolist()]
        is_mine = store.claim(settings, wanted, layers, parts, at_most=at_most)
        if not is_mine.any():
            store.wait(settings, wanted)
            missing = store.read_into(settings, wanted, layers, parts, out, rows)
            rows = rows[missing.any(axis=(1, 2))]
            continue
        mine = rows[is_mine]
        try:
            for numbers, states in compute(mine):
                written = [digests[row] for row in numbers.tolist()]
                out[numbers] = store.write(settings, written, layers, parts, states)
        finally:
            store.release(settings, [digests[row] for row in mine.tolist()])
        rows = rows[~is_mine]
