"""Labels as a report is given them → an array and its classes, or an error."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_consistent_length, column_or_1d


def read_labels(
    X: Any,  # noqa: ANN401 - whatever an estimator takes
    y: ArrayLike,
    groups: ArrayLike | None,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Read labels, and check that they are those of classes, one for each row.

    Parameters
    ----------
    X : array-like of shape (n_samples, ...)
        Rows.
    y : array-like of shape (n_samples,)
        Their labels.
    groups : array-like of shape (n_samples,) or None
        Their groups.

    Returns
    -------
    y : ndarray of shape (n_samples,)
        The labels.
    classes : ndarray of shape (n_classes,)
        Those that there are, sorted.

    Raises
    ------
    ValueError
        If they are anything else.
    """
    labels = column_or_1d(y)
    check_consistent_length(X, labels, groups)
    for name, given in (("y", labels), ("groups", groups)):
        _refuse_missing(name, given)
    try:
        classes = np.unique(labels)
    except TypeError:
        kinds = sorted({type(label).__name__ for label in labels})
        raise ValueError(
            "The 'y' parameter of cross_validation_report must be labels of one type. "
            f"Got {kinds} instead."
        ) from None
    is_continuous = classes.dtype.kind == "f" and (classes != np.floor(classes)).any()
    if is_continuous or len(classes) < 2:
        what = "continuous values" if is_continuous else "one class"
        raise ValueError(
            "The 'y' parameter of cross_validation_report must be labels of two "
            f"classes or more. Got {what} instead: {classes[:5].tolist()}."
        )
    return labels, classes


def _refuse_missing(name: str, given: ArrayLike | None) -> None:
    missing: list[int] = []
    if given is not None:
        missing = np.flatnonzero(pd.isna(np.asarray(given))).tolist()
    if missing:
        found = f"{len(missing)} missing, at rows {missing[:5]}"
        raise ValueError(
            f"The {name!r} parameter of cross_validation_report must have a value for "
            f"each row. Got {found}{'' if len(missing) <= 5 else ' and others'}."
        )
