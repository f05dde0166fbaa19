"""Read the layers, parts and hidden units of samples from their shape."""

from typing import Any

import numpy as np


def refuse_tokens(X: Any, owner: str) -> None:  # noqa: ANN401 - as users give it
    """Refuse activations of tokens: an array or list of arrays, one for each text."""
    is_array = isinstance(X, np.ndarray) and X.dtype == object and X.ndim == 1
    if not is_array and not isinstance(X, list | tuple):
        return
    shapes = {np.shape(item) for item in X if isinstance(item, np.ndarray)}
    # A list of arrays of one shape is as good as one array.
    if any(len(shape) > 1 for shape in shapes) and (is_array or len(shapes) > 1):
        raise ValueError(
            f"X given to {owner} must be one array of numbers. Got an array for each "
            "text instead: PlugTokenClassifier reads the activations of all tokens; "
            "pooling='mean' or 'last' in HFEmbeddingTransformer pools them."
        )


def read_geometry(
    input_shape: tuple[int, ...],
    n_layers: int | None,
    n_parts: int | None,
    owner: str,
) -> tuple[int, int, int]:
    """Read numbers of layers, parts and hidden units.

    ``n_layers`` and ``n_parts`` are the parameters of the classifier ``owner``, which
    divide samples of one axis.
    """
    if len(input_shape) == 1:
        return _unflatten(input_shape[0], n_layers or 1, n_parts or 1, owner)
    if len(input_shape) > 3:
        raise ValueError(
            f"X given to {owner} must be (n, layers, parts, hidden), "
            "(n, layers, hidden) or (n, features). Got samples of shape "
            f"{input_shape} instead."
        )
    found_layers, *parts, hidden_size = input_shape
    found_parts = parts[0] if parts else 1
    for name, wanted, found in (
        ("n_layers", n_layers, found_layers),
        ("n_parts", n_parts, found_parts),
    ):
        if wanted not in (None, found):
            raise ValueError(
                f"The {name!r} parameter of {owner} must be None or {found}, as "
                f"in X. Got {wanted} instead."
            )
    return found_layers, found_parts, hidden_size


def _unflatten(
    n_features: int, n_layers: int, n_parts: int, owner: str
) -> tuple[int, int, int]:
    if n_features % (n_layers * n_parts):
        raise ValueError(
            f"The 'n_layers' and 'n_parts' parameters of {owner} must divide the "
            f"{n_features} features of X. Got {n_layers} and {n_parts} instead."
        )
    return n_layers, n_parts, n_features // (n_layers * n_parts)


def holds_sequences(y: Any) -> bool:  # noqa: ANN401 - validated by its callers
    """Return whether some of the labels are sequences."""
    is_listed = isinstance(y, list | tuple) or str(getattr(y, "dtype", "")) == "object"
    return is_listed and any(isinstance(own, list | tuple | np.ndarray) for own in y)


def refuse_token_labels(y: Any, owner: str) -> None:  # noqa: ANN401 - validated later
    """Refuse several labels for a sample; a column of labels is read later."""
    if holds_sequences(y) and any(np.size(own) != 1 for own in y):
        raise ValueError(
            f"y given to {owner} must hold one label for each sample. Got sequences of "
            "labels instead: PlugTokenClassifier takes labels of tokens."
        )
