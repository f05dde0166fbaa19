"""Classes ⇄ plain JSON values with their dtype."""

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plug_sklearn.persistence._schema import Labels

_NUMBERS = frozenset(
    [
        "bool",
        *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
        *(f"float{bits}" for bits in (16, 32, 64)),
    ]
)


def describe_labels(classes: NDArray[Any]) -> Labels:
    """Turn classes into plain values.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
        Numbers, bools or strings; strings may be objects.

    Returns
    -------
    Labels
        Validated.

    Raises
    ------
    ValueError
        If they are of another kind.
    """
    kind = "str" if classes.dtype.kind == "U" else classes.dtype.name
    values = classes.tolist()
    strings = kind in ("str", "object") and all(isinstance(v, str) for v in values)
    if kind not in _NUMBERS and not strings:
        raise ValueError(
            "Classes must be numbers, bools or strings to be saved. Got an array of "
            f"{classes.dtype}: {values!r} instead."
        )
    return Labels(dtype=kind, values=[str(v) for v in values] if strings else values)


def read_labels(labels: Labels) -> NDArray[Any]:
    """Make the array of classes again.

    Parameters
    ----------
    labels : Labels
        What ``describe_labels`` gave.

    Returns
    -------
    ndarray of shape (n_classes,)

    Raises
    ------
    ValueError
        If values and dtype do not agree, or they are not sorted and distinct.
    """
    values, kind = labels.values, labels.dtype
    if kind not in (*_NUMBERS, "str", "object"):
        raise ValueError(f"its classes have dtype {kind!r}, which no file has")
    expected = {"bool": bool, "str": str, "object": str}.get(
        kind, float if kind.startswith("float") else int
    )
    if not all(type(value) is expected for value in values):
        raise ValueError(f"its classes are not all of dtype {kind!r}: {values!r}")
    try:
        classes = np.array(values, dtype=kind)
    except OverflowError:
        raise ValueError(f"its classes do not fit {kind!r}: {values!r}") from None
    sorts = all(one < next_ for one, next_ in pairwise(values))  # type: ignore[operator]  # of one type, as checked
    if classes.tolist() != values or not sorts:
        raise ValueError(f"its classes are not distinct and sorted: {values!r}")
    return classes
