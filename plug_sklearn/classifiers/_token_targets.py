"""Check and encode labels of tokens."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from plug_sklearn.classifiers._data import encode_labels

#: Label of tokens without a label.
UNLABELLED = -1


def has_token_labels(y: Any) -> bool:  # noqa: ANN401 - validated by its callers
    """Return whether ``y`` holds labels of tokens: a sequence for each text."""
    if hasattr(y, "to_numpy"):
        y = y.to_numpy()
    if isinstance(y, np.ndarray) and (y.dtype != object or y.ndim != 1):
        # One column holds labels of texts.
        return y.ndim == 2 and y.shape[1] > 1
    if not isinstance(y, list | tuple | np.ndarray) or len(y) == 0:
        return False
    return all(isinstance(item, list | tuple | np.ndarray) for item in y)


def read_token_labels(
    y: Any,  # noqa: ANN401 - a sequence of sequences
    texts: NDArray[np.object_],
    owner: str,
) -> list[NDArray[Any]]:
    """Check labels of tokens: numbers or strings, one for each token of each text."""
    labels = []
    given = (label for own in y for label in own if label is not None)
    fill = "" if isinstance(next(given, 0), str) else UNLABELLED
    for position, (own, text) in enumerate(zip(y, texts, strict=True)):
        found = np.asarray(own)
        if found.dtype.kind not in "iubf":
            items = [fill if label is None else label for label in own]
            if len({isinstance(label, str) for label in items}) > 1:
                raise ValueError(
                    f"y given to {owner} must hold numbers or strings as labels of "
                    f"tokens. Got both at position {position}."
                )
            found = np.array(items)
        if found.shape != (len(text),) or found.dtype.kind not in "iubUf":
            raise ValueError(
                f"y given to {owner} must hold a number or string for each text, or "
                f"one for each token of each text. Got {found.dtype} of shape "
                f"{found.shape} at position {position}, whose text has {len(text)} "
                "tokens."
            )
        if found.dtype.kind == "f":
            # Larger numbers are rounded in this format; NaN is not smaller.
            is_exact = np.abs(found) < 2.0**53
            if not (is_exact & (found == np.floor(found))).all():
                raise ValueError(
                    f"y given to {owner} must hold labels of tokens that are whole "
                    f"numbers or strings. Got {found.tolist()[:5]} at position "
                    f"{position}."
                )
            found = found.astype(np.int64)
        labels.append(found.astype(np.int64) if found.dtype.kind in "iub" else found)
    kinds = {own.dtype.kind for own in labels}
    if len(kinds) > 1:
        raise ValueError(
            f"y given to {owner} must hold numbers or strings as labels of tokens. Got "
            "both."
        )
    return labels


def encode_token_labels(
    labels: list[NDArray[Any]], weight: NDArray[np.float64], owner: str
) -> tuple[NDArray[Any], NDArray[np.object_]]:
    """Find the classes of token labels, and encode the labels; -1 for no label."""
    flat = np.concatenate(labels)
    weights = np.repeat(weight, [len(own) for own in labels])
    present = flat[~is_unlabelled(flat) & (weights > 0)]
    if not len(present):
        raise ValueError(
            f"y given to {owner} must label at least one token of weight above 0. Got "
            f"{UNLABELLED} for each of {len(flat)} tokens instead."
        )
    classes, _ = encode_labels(present, np.ones(len(present)), owner)
    return classes, encode_each(labels, classes)


def is_unlabelled(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Mark the tokens that have no label."""
    unlabelled: int | str = "" if labels.dtype.kind == "U" else UNLABELLED
    marked: NDArray[np.bool_] = labels == unlabelled
    return marked


def encode_each(
    labels: list[NDArray[Any]], classes: NDArray[Any]
) -> NDArray[np.object_]:
    """Encode the labels of each text; -1 for no label."""
    codes = np.empty(len(labels), dtype=object)
    for position, own in enumerate(labels):
        found = np.searchsorted(classes, own).clip(max=len(classes) - 1)
        # A label that only texts of weight 0 have is not a class.
        codes[position] = np.where(classes[found] == own, found, UNLABELLED)
    return codes
