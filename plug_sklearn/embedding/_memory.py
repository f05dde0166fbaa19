"""How much memory activations take, and how much is free."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
            "or 'parts', with activation_dtype='float16', or, if tokens are kept, "
            "with a smaller 'max_length'. Or transform fewer texts at a time, with a "
            "'store' that keeps the results."
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
            out[row] = cast_states(np.asarray(item), dtype)
    else:
        out[rows] = cast_states(np.asarray(states), dtype)


def cast_states(
    states: NDArray[np.floating], dtype: np.dtype[np.floating]
) -> NDArray[np.floating]:
    """Turn states into the dtype of activations.

    Raises a FloatingPointError if a state is too large for it.
    """
    with np.errstate(over="ignore"):
        cast: NDArray[np.floating] = states.astype(dtype, copy=False)
    if dtype != np.float32 and not np.isfinite(cast).all():
        raise _refuse_dtype(dtype)
    return cast


def require_finite(
    out: NDArray[Any], rows: NDArray[np.int64], dtype: np.dtype[np.floating]
) -> None:
    """Refuse rows that hold states too large for the dtype of activations."""
    if dtype == np.float32:
        return
    for row in rows:
        if not np.isfinite(out[row]).all():
            raise _refuse_dtype(dtype)


def _refuse_dtype(dtype: np.dtype[np.floating]) -> FloatingPointError:
    return FloatingPointError(
        f"The 'activation_dtype' parameter of {OWNER} must be 'float32', because some "
        f"states are too large for {dtype.name}. Got {dtype.name!r} instead."
    )


def _show(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:,.1f} GiB"
