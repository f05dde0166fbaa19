"""The rows of X and of its activations: their memory, and errors that name them."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from numpy.typing import NDArray

from plug_sklearn.embedding._parameters import OWNER
from plug_sklearn.embedding.passes import NonFiniteStatesError
from plug_sklearn.embedding.prompts import RefusedTextError, Text, list_positions

#: Where Linux says what a container may use and uses, in bytes.
_LIMIT = Path("/sys/fs/cgroup/memory.max")
_USED = Path("/sys/fs/cgroup/memory.current")
#: Where it says what that is used for, a line each.
_USES = Path("/sys/fs/cgroup/memory.stat")


def refuse_missing_labels(y: Any) -> None:  # noqa: ANN401 - labels of any kind
    """Raise a ValueError if a label is None or NaN."""
    labels = y.to_numpy() if hasattr(y, "to_numpy") else y
    if isinstance(labels, np.ndarray) and labels.dtype.kind not in "fO":
        return
    missing = np.flatnonzero(pd.Series(list(labels), dtype=object).isna()).tolist()
    if missing:
        raise ValueError(
            f"The 'y' given to {OWNER} must have a label for each text. Got "
            f"{len(missing)} missing, at positions {list_positions(missing)}."
        )


@contextmanager
def naming_positions(texts: Sequence[Text]) -> Iterator[None]:
    """Add the positions in X to errors about texts."""
    try:
        yield
    except RefusedTextError as error:
        raise error.locate(texts) from None
    except NonFiniteStatesError as error:
        found = set(error.texts)
        positions = [row for row, text in enumerate(texts) if text in found]
        raise FloatingPointError(
            f"The states of {error.states} contain infinity or NaN for at least "
            f"{len(positions)} of {len(texts)} texts, at positions "
            f"{list_positions(positions)}. The first of them is "
            f"{texts[positions[0]]!r}. Use dtype='bfloat16' or 'float32' in {OWNER}."
        ) from None


def find_free_memory() -> int:
    """Return the bytes that are free for this process, within its container's limit."""
    free = int(psutil.virtual_memory().available)
    try:
        limit, used = (int(path.read_text()) for path in (_LIMIT, _USED))
        uses = dict(line.split() for line in _USES.read_text().splitlines())
        # Files that were read are kept in memory only as long as nothing else needs it.
        cached = int(uses["inactive_file"])
    # Not on Linux, or "max": no limit.
    except (OSError, ValueError, KeyError):
        return free
    return min(free, limit - used + cached)


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
    n_items = n_samples if n_tokens is None else n_tokens
    n_bytes = n_items * math.prod(shape) * dtype.itemsize
    free = find_free_memory()
    if n_bytes > free:
        needed, left = (f"{n / 2**30:,.1f} GiB" for n in (n_bytes, free))
        raise MemoryError(
            f"The activations of {n_samples} texts take {needed}, and {left} of memory "
            f"are free. {OWNER} takes less with fewer 'layers' or 'parts', with "
            "activation_dtype='float16', or, if tokens are kept, with a smaller "
            "'max_length'. Or transform fewer texts at a time, with a 'store' that "
            "keeps the results."
        )
    if n_tokens is None:
        return np.empty((n_samples, *shape), dtype=dtype)
    return np.empty(n_samples, dtype=object)


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
            out[row] = cast_states(np.asarray(item)[None], dtype, [row])[0]
    else:
        out[rows] = cast_states(np.asarray(states), dtype, rows)


def cast_states(
    states: NDArray[np.floating],
    dtype: np.dtype[np.floating],
    rows: Sequence[int] | NDArray[np.int64],
) -> NDArray[np.floating]:
    """Convert states of shape (n, ...) to the dtype of activations.

    ``rows`` (n,) are the rows of X that they are of. Raises a FloatingPointError if a
    state is too large for the dtype.
    """
    with np.errstate(over="ignore"):
        cast: NDArray[np.floating] = states.astype(dtype, copy=False)
    refuse_infinite(cast, dtype, rows)
    return cast


def refuse_infinite(
    states: Iterable[NDArray[np.floating]],
    dtype: np.dtype[np.floating],
    rows: Sequence[int] | NDArray[np.int64],
) -> None:
    """Refuse states, of these rows of X, that became infinite in another dtype."""
    if dtype == np.float32:
        return
    refused = sorted(
        int(row)
        for row, item in zip(rows, states, strict=True)
        if not np.isfinite(item).all()
    )
    if refused:
        raise FloatingPointError(
            f"The 'activation_dtype' parameter of {OWNER} must be 'float32', because "
            f"states of at least {len(refused)} texts are too large for {dtype.name}, "
            f"at positions {list_positions(refused)}. Got {dtype.name!r} instead."
        )
