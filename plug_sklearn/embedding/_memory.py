"""How much memory activations take, and how much is free."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

OWNER = "HFEmbeddingTransformer"
#: Where Linux says what a container may use and uses, in bytes.
_LIMIT = Path("/sys/fs/cgroup/memory.max")
_USED = Path("/sys/fs/cgroup/memory.current")


def find_free_memory() -> int:
    """Give the bytes that this process can still take, within its container's limit."""
    free = int(psutil.virtual_memory().available)
    try:
        limit, used = (int(path.read_text()) for path in (_LIMIT, _USED))
    # Not on Linux, or "max": no limit.
    except (OSError, ValueError):
        return free
    return min(free, limit - used)


def refuse_too_large(n_bytes: int, n_samples: int) -> None:
    """Refuse activations that do not fit into free memory, before they are computed.

    Parameters
    ----------
    n_bytes : int
        What they take.
    n_samples : int
        How many texts they are of.

    Raises
    ------
    MemoryError
        If they do not fit; says how much is needed and what takes less.
    """
    free = find_free_memory()
    if n_bytes > free:
        raise MemoryError(
            f"The activations of {n_samples} texts take {_show(n_bytes)}, and "
            f"{_show(free)} of memory are free. {OWNER} takes less with fewer 'layers' "
            "or 'parts', activation_dtype='float16', a smaller 'max_length' where "
            "tokens are kept, or fewer texts at a time, which a 'store' keeps."
        )


def count_bytes(n_rows: int, shape: Sequence[int], dtype: np.dtype[np.floating]) -> int:
    """Count the bytes of an array of ``n_rows`` items of a shape."""
    return n_rows * int(np.prod(shape, dtype=np.int64)) * dtype.itemsize


def put_states(
    out: NDArray[np.floating] | NDArray[np.object_],
    rows: NDArray[np.int64],
    states: NDArray[np.floating] | list[NDArray[np.floating]],
    dtype: np.dtype[np.floating],
) -> None:
    """Put the states of some texts into their rows.

    Parameters
    ----------
    out : ndarray of shape (n_samples, ...)
        Activations; of dtype object for those of tokens.
    rows : ndarray of shape (n,), int64
        Where the texts are in it.
    states : ndarray of shape (n, ...) or list of n ndarray
        What to put there.
    dtype : dtype
        What they become.

    Raises
    ------
    FloatingPointError
        If a state is too large for the dtype.
    """
    if out.dtype == object:
        for row, item in zip(rows, states, strict=True):
            out[row] = _cast(np.asarray(item), dtype)
    else:
        out[rows] = _cast(np.asarray(states), dtype)


def _cast(
    states: NDArray[np.floating], dtype: np.dtype[np.floating]
) -> NDArray[np.floating]:
    with np.errstate(over="ignore"):
        cast: NDArray[np.floating] = states.astype(dtype, copy=False)
    if dtype != np.float32 and not np.isfinite(cast).all():
        raise FloatingPointError(
            f"The 'activation_dtype' parameter of {OWNER} must be 'float32' for states "
            f"as large as {np.abs(states).max():.3g}. Got {dtype.name!r} instead."
        )
    return cast


def _show(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:,.1f} GiB"
