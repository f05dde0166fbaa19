"""Check estimators, rows, labels and groups, whose order is easily mistaken."""

from reprlib import repr as shorten
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray


def describe(value: object) -> str:
    """Describe a value in a few words, for an error message."""
    if isinstance(value, str | bytes | int | float | type(None)):
        return shorten(value)
    name = type(value).__name__
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple):
        return f"{name} of shape {shape}"
    if isinstance(value, list | tuple | dict):
        return f"{name} of length {len(value)}"
    return name


def check_estimator(value: object, owner: str, parameter: str = "estimator") -> None:
    """Raise a TypeError unless a value is an estimator."""
    if isinstance(value, type) or not hasattr(value, "fit"):
        found = f"the class {value.__name__}" if isinstance(value, type) else None
        raise TypeError(
            f"The {parameter!r} parameter of {owner} must be an estimator. Got "
            f"{found or describe(value)} instead."
        )


def check_rows(
    X: Any,  # noqa: ANN401 - whatever an estimator takes
    y: Any,  # noqa: ANN401 - anything else is refused
    groups: Any,  # noqa: ANN401 - anything else is refused
    owner: str,
) -> None:
    """Raise an error unless X, y and groups are of the same rows.

    Labels may have two axes, for regressors of several targets, and groups must have
    one. Missing labels and groups are refused, and so are activations that are not
    finite. Features may be missing, because a pipeline may impute them.
    """
    for name, value in (("X", X), ("y", y)):
        if _count_rows(value) is None:
            raise TypeError(
                f"The {name!r} parameter of {owner} must be array-like, with an item "
                f"for each row. Got {describe(value)} instead."
            )
    if isinstance(X, np.ndarray) and X.ndim == 1 and X.dtype.kind in "biuf":
        raise ValueError(
            f"The 'X' parameter of {owner} must be texts, or an array of two axes or "
            f"more. Got {describe(X)} instead."
        )
    if len(getattr(y, "shape", (0,))) > 2:
        raise ValueError(
            f"The 'y' parameter of {owner} must have a label for each row. Got "
            f"{describe(y)} instead."
        )
    n_rows = _count_rows(X)
    if _count_rows(y) != n_rows:
        raise ValueError(
            f"The 'y' parameter of {owner} must have a label for each of the {n_rows} "
            f"rows of X. Got {_count_rows(y)} instead."
        )
    _refuse_token_labels(y, owner)
    if len(getattr(y, "shape", (0,))) == 1:
        refuse_missing("y", y, owner)
    check_groups(groups, n_rows, owner)
    if isinstance(X, np.ndarray) and X.ndim > 2 and X.dtype.kind == "f":
        _refuse_non_finite(np.asarray(X), owner)


def check_groups(groups: ArrayLike | None, n_rows: int | None, owner: str) -> None:
    """Raise a ValueError unless groups, if any, have a value for each row."""
    if groups is None:
        return
    expected = f"The 'groups' parameter of {owner} must have a group for each row"
    n_found = _count_rows(groups)
    if n_found is None or len(getattr(groups, "shape", (0,))) > 1:
        raise ValueError(f"{expected}. Got {describe(groups)} instead.")
    if n_found != n_rows:
        raise ValueError(f"{expected} of X. Got {n_found} for {n_rows} rows instead.")
    refuse_missing("groups", groups, owner)


def refuse_missing(name: str, given: ArrayLike, owner: str) -> None:
    """Raise a ValueError if labels or groups are None or NaN."""
    missing = np.flatnonzero(pd.isna(np.asarray(given, dtype=object))).tolist()
    if missing:
        found = f"{len(missing)} missing, at rows {missing[:5]}"
        raise ValueError(
            f"The {name!r} parameter of {owner} must have a value for each row. Got "
            f"{found}{'' if len(missing) <= 5 else ' and others'}."
        )


def _refuse_token_labels(y: Any, owner: str) -> None:  # noqa: ANN401 - checked here
    """Raise a ValueError if the labels are sequences of several lengths.

    Sequences of one length may be the targets of a regressor.
    """
    is_array = isinstance(y, np.ndarray | pd.Series)
    own = [label for label in y if isinstance(label, list | tuple | np.ndarray)]
    if own and ((is_array and y.ndim == 1) or len({len(label) for label in own}) > 1):
        raise ValueError(
            f"The 'y' parameter of {owner} must have one label for each row. Got "
            "labels of tokens instead, which only cross_val_score can score."
        )


def _refuse_non_finite(X: NDArray[Any], owner: str) -> None:
    """Raise a ValueError if activations contain NaN or infinity."""
    # A sum takes no memory, and is not finite if any activation is not.
    if np.isfinite(X.sum(dtype=np.float64)):
        return
    rows = np.flatnonzero(~np.isfinite(X).all(axis=tuple(range(1, X.ndim)))).tolist()
    raise ValueError(
        f"The 'X' parameter of {owner} must contain finite activations. Got NaN or "
        f"infinity in {len(rows)} of {len(X)} rows, such as {rows[:5]}."
    )


def _count_rows(value: Any) -> int | None:  # noqa: ANN401 - values of any kind
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple):
        return int(shape[0]) if shape else None
    # A pipeline has a length, the number of its steps.
    is_other = isinstance(value, str | bytes) or hasattr(value, "fit")
    return None if is_other or not hasattr(value, "__len__") else len(value)
