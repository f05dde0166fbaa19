"""Activations as numpy arrays: of any library, and with one array for each text."""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

from plug_sklearn._sklearn import check_n_features, explaining_texts


def read_activations(
    estimator: BaseEstimator,
    X: Any,  # noqa: ANN401 - array-likes of any kind
    *,
    reset: bool,
) -> NDArray[Any]:
    """Check the ``X`` of an estimator, and return it with four axes.

    Token activations are returned in an array of shape (n_samples,), with four axes
    for each text. ``reset`` is whether the number of features is that of ``X``.
    """
    owner = type(estimator).__name__
    if _is_ragged(X):
        ragged = _read_ragged(X, owner)
        if reset:
            check_n_features(estimator, ragged[0], reset=True)
        return ragged
    X = _to_array(X)
    dtypes: list[type] = [np.float64, np.float32]
    if _holds_single(X):
        # This keeps float32 of any byte order, and turns float16 into float32.
        dtypes.reverse()
    with explaining_texts(owner):
        activations: NDArray[np.floating] = validate_data(
            estimator, X, reset=reset, allow_nd=True, dtype=dtypes
        )
    if activations.ndim > 4:
        raise ValueError(
            f"X given to {owner} must have 2 to 4 axes: samples, layers, parts, "
            f"hidden units. Got shape {activations.shape} instead."
        )
    # Two axes are samples and hidden units, and three are samples, layers and hidden
    # units.
    missing = tuple(range(activations.ndim - 1, 3))
    return np.expand_dims(activations, missing)


def _to_array(X: Any) -> Any:  # noqa: ANN401 - array-likes of any kind
    """Convert a torch tensor, or a list of tensors or arrays, to one array.

    Tensors of dtypes that numpy lacks become float32. Others are returned as they are.
    """
    if _is_tensor(X):
        tensor = X.detach().cpu()
        # numpy has no bfloat16 and no 8-bit floats.
        is_short = tensor.dtype.is_floating_point and tensor.dtype.itemsize < 4
        return (tensor.float() if is_short else tensor).numpy()
    if isinstance(X, list | tuple):
        return np.asarray([_to_array(item) if _is_tensor(item) else item for item in X])
    return X


def _holds_single(X: Any) -> bool:  # noqa: ANN401 - as above
    """Return whether values are floats of up to 32 bits, which float32 can hold."""
    # The columns of a frame have dtypes of their own; numpy finds a common one.
    dtype = getattr(np.asarray(X[:0]) if hasattr(X, "columns") else X, "dtype", None)
    return isinstance(dtype, np.dtype) and dtype.kind == "f" and dtype.itemsize <= 4


def _is_tensor(X: Any) -> bool:  # noqa: ANN401 - as above
    # Importing torch takes seconds. Whoever passes a tensor has already imported it.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(X, torch.Tensor)


def _is_ragged(X: Any) -> bool:  # noqa: ANN401 - array-likes of any kind
    """Return whether ``X`` must hold an array of token activations for each text.

    It is then a 1-D array of dtype object, or a list of arrays with four axes. A list
    of texts counts as one, and is refused when it is read.
    """
    if isinstance(X, np.ndarray):
        return bool(X.dtype == object and X.ndim == 1)
    is_list = isinstance(X, list | tuple) and len(X) > 0
    if not is_list:
        return False
    return isinstance(X[0], str) or (_is_array(X[0]) and X[0].ndim == 4)


def _read_ragged(X: Sequence[Any], owner: str) -> NDArray[np.object_]:
    """Check token activations, and return them in an array of shape (n_samples,).

    Each item must have the shape (n_tokens, n_layers, n_parts, hidden_size), and only
    ``n_tokens`` may differ. Items are converted to float32 or float64; an array that
    occurs twice stays one object.
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
