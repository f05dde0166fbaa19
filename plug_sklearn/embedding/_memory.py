"""Check that activations fit into memory, and convert their dtype."""

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
    """Return the bytes that are free for this process, within its container's limit."""
    free = int(psutil.virtual_memory().available)
    try:
        limit, used = (int(path.read_text()) for path in (_LIMIT, _USED))
    # Not on Linux, or "max": no limit.
    except (OSError, ValueError):
        return free
    return min(free, limit - used)


def make_room(
    n_samples: int,
    shape: Sequence[int],
    dtype: np.dtype[np.floating],
    n_tokens: int | None,
) -> NDArray[Any]:
    """Allocate an array of activations, whose items have the given shape.

    If every token is kept, ``n_tokens`` counts them, and the array holds objects.
    Raises a MemoryError if the activations do not fit into free memory.
    """
    if n_tokens is None:
        _refuse_too_large(_count_bytes(n_samples, shape, dtype), n_samples)
        return np.empty((n_samples, *shape), dtype=dtype)
    _refuse_too_large(_count_bytes(n_tokens, shape, dtype), n_samples)
    return np.empty(n_samples, dtype=object)


def _refuse_too_large(n_bytes: int, n_samples: int) -> None:
    """Say how much memory is needed, and what needs less."""
    free = find_free_memory()
    if n_bytes > free:
        raise MemoryError(
            f"The activations of {n_samples} texts take {_show(n_bytes)}, and "
            f"{_show(free)} of memory are free. {OWNER} takes less with fewer 'layers' "
            "or 'parts', with activation_dtype='float16', or, if tokens are kept, "
            "with a smaller 'max_length'. Or transform fewer texts at a time, with a "
            "'store' that keeps the results."
        )


def _count_bytes(
    n_rows: int, shape: Sequence[int], dtype: np.dtype[np.floating]
) -> int:
    """Count the bytes of an array of ``n_rows`` items of a shape."""
    return n_rows * int(np.prod(shape, dtype=np.int64)) * dtype.itemsize


def put_states(
    out: NDArray[np.floating] | NDArray[np.object_],
    rows: NDArray[np.int64],
    states: NDArray[np.floating] | list[NDArray[np.floating]],
    dtype: np.dtype[np.floating],
) -> None:
    """Set ``out[rows]`` to the states of some texts, converted to ``dtype``.

    ``out`` has the shape (n_samples, ...), or dtype object for token activations.
    ``states`` are an array of shape (n, ...) or a list of n arrays. Raises a
    FloatingPointError if a state is too large for the dtype.
    """
    if out.dtype == object:
        for row, item in zip(rows, states, strict=True):
            out[row] = cast_states(np.asarray(item), dtype)
    else:
        out[rows] = cast_states(np.asarray(states), dtype)


def cast_states(
    states: NDArray[np.floating], dtype: np.dtype[np.floating]
) -> NDArray[np.floating]:
    """Convert states to the dtype of activations.

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
