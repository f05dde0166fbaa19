"""Token activations: one array a text, of as many rows as the text has tokens."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def is_ragged(X: Any) -> bool:  # noqa: ANN401 - array-likes of any kind
    """Tell whether ``X`` must hold arrays of token activations, one a text.

    Parameters
    ----------
    X : array-like
        Activations: a 1-D array of dtype object, or a list of arrays of four axes. A
        list of texts counts as one, and is refused when it is read.
    """
    if isinstance(X, np.ndarray):
        return bool(X.dtype == object and X.ndim == 1)
    is_list = isinstance(X, list | tuple) and len(X) > 0
    if not is_list:
        return False
    return isinstance(X[0], str) or (_is_array(X[0]) and X[0].ndim == 4)


def read_ragged(X: Sequence[Any], owner: str) -> NDArray[np.object_]:
    """Check token activations.

    Parameters
    ----------
    X : sequence of array of shape (n_tokens, n_layers, n_parts, hidden_size)
        One array a text; texts differ in their number of tokens only.
    owner : str
        Name of the estimator, for messages.

    Returns
    -------
    ndarray of shape (n_samples,), object
        The arrays, of float32 or float64; equal ones stay one object.

    Raises
    ------
    ValueError
        If there is none, or an item is not such an array, has no token, or holds NaN or
        infinity.
    """
    if len(X) == 0:
        raise ValueError(
            f"X given to {owner} must hold the activations of at least one text. "
            "Found an array with 0 sample(s)."
        )
    checked: dict[int, NDArray[np.floating]] = {}
    arrays = np.empty(len(X), dtype=object)
    shape: tuple[int, ...] | None = None
    for position, item in enumerate(X):
        # Equal texts share one array, which is checked once.
        if id(item) not in checked:
            checked[id(item)] = _check_item(item, position, owner, shape)
        arrays[position] = checked[id(item)]
        shape = arrays[0].shape[1:]
    return arrays


def map_ragged(
    arrays: NDArray[np.object_],
    function: Any,  # noqa: ANN401 - array → array
) -> NDArray[np.object_]:
    """Apply a function to each distinct array, and keep equal ones one object."""
    results: dict[int, Any] = {}
    mapped = np.empty(len(arrays), dtype=object)
    for position, item in enumerate(arrays):
        if id(item) not in results:
            results[id(item)] = function(item)
        mapped[position] = results[id(item)]
    return mapped


def _check_item(
    item: Any,  # noqa: ANN401 - validated here
    position: int,
    owner: str,
    shape: tuple[int, ...] | None,
) -> NDArray[np.floating]:
    expected = "(n_tokens, n_layers, n_parts, hidden_size)"
    if not _is_array(item) or item.ndim != 4 or item.dtype.kind not in "fiu":
        found = f"shape {item.shape}" if _is_array(item) else type(item).__name__
        raise ValueError(
            f"X given to {owner} must be one array, or hold an array of numbers of "
            f"shape {expected} for each text. Got {found} at position {position} "
            "instead."
        )
    if len(item) == 0:
        raise ValueError(
            f"X given to {owner} must hold arrays of at least one token. Got an array "
            f"of shape {item.shape} at position {position}."
        )
    if shape is not None and item.shape[1:] != shape:
        raise ValueError(
            f"X given to {owner} must hold arrays that differ only in their number of "
            f"tokens: earlier ones have the shape {shape} for each token. Got "
            f"{item.shape[1:]} at position {position} instead."
        )
    if not np.isfinite(item).all():
        raise ValueError(
            f"X given to {owner} must not hold NaN or infinity. Found one at position "
            f"{position}."
        )
    is_single = item.dtype.kind == "f" and item.dtype.itemsize <= 4
    checked: NDArray[np.floating] = item.astype(
        np.float32 if is_single else np.float64, copy=False
    )
    return checked


def _is_array(item: object) -> bool:
    return isinstance(item, np.ndarray) and item.dtype != object
