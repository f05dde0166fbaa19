"""Labels → codes and weights."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.validation import _check_sample_weight

ClassWeight = dict[Any, float] | str | None


def read_sample_weight(
    sample_weight: ArrayLike | None, X: NDArray[np.float32], owner: str
) -> NDArray[np.float64]:
    """Check sample weights.

    Parameters
    ----------
    sample_weight : array-like of shape (n,) or None
        None: all 1.
    X : ndarray of shape (n, ...)
        Samples.
    owner : str
        Name of the estimator, for messages.

    Returns
    -------
    ndarray of shape (n,), float64
        Scaled so that the largest is in [0.5, 1).

    Raises
    ------
    ValueError
        If there are not n of them, one is negative or not finite, or all are zero.
    """
    weight: NDArray[np.float64] = _check_sample_weight(
        sample_weight, X, dtype=np.float64, ensure_non_negative=True
    )
    if not weight.any():
        raise ValueError(
            f"The sample weights of {owner} must not all be zero. Got {len(weight)} "
            "weights of zero instead."
        )
    return scale_below_one(weight)


def scale_below_one(weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale weights so that the largest is in [0.5, 1) and no sum of them overflows.

    Parameters
    ----------
    weight : ndarray of shape (n,)
        Not negative, finite, not all 0.

    Returns
    -------
    ndarray of shape (n,)
        ``weight`` times a power of two, which rounds nothing.
    """
    _, exponent = np.frexp(weight.max())
    scaled: NDArray[np.float64] = np.ldexp(weight, -exponent)
    return scaled


def encode_labels(
    y: NDArray[Any], weight: NDArray[np.float64], owner: str
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Encode labels by the classes of the rows that have weight.

    Parameters
    ----------
    y : ndarray of shape (n,)
        Labels.
    weight : ndarray of shape (n,)
        Weights.
    owner : str
        Name of the estimator, for messages.

    Returns
    -------
    classes : ndarray of shape (n_classes,)
        Labels in order.
    codes : ndarray of shape (n,)
        Positions in ``classes``; of no meaning for rows of weight 0.

    Raises
    ------
    ValueError
        If there are not two classes at least.
    """
    labels, label_codes = np.unique(y, return_inverse=True)
    present = np.unique(label_codes[weight > 0])
    if len(present) < 2:
        raise ValueError(
            f"The labels given to {owner} must be of at least two classes. Got one "
            f"class, {labels[present].tolist()[0]!r}, instead."
        )
    return labels[present], np.searchsorted(present, label_codes)


def match_labels(
    y: NDArray[Any], classes: NDArray[Any], owner: str
) -> NDArray[np.intp]:
    """Encode labels by classes that are known.

    Parameters
    ----------
    y : ndarray of shape (n,)
        Labels.
    classes : ndarray of shape (n_classes,)
        Known labels in order.
    owner : str
        Name of the estimator, for messages.

    Returns
    -------
    ndarray of shape (n,)
        Positions in ``classes``.

    Raises
    ------
    ValueError
        If a label is not known.
    """
    unknown = np.setdiff1d(y, classes)
    if len(unknown):
        raise ValueError(
            f"The 'y_val' given to {owner} must hold labels that y holds, "
            f"{classes.tolist()}. Got {unknown.tolist()} instead."
        )
    return np.searchsorted(classes, y)


def weigh_classes(
    class_weight: ClassWeight,
    classes: NDArray[Any],
    codes: NDArray[np.intp],
    weight: NDArray[np.float64],
    owner: str,
) -> NDArray[np.float64]:
    """Compute the factor of each class.

    Parameters
    ----------
    class_weight : dict, "balanced" or None
        Factors by label, 1 for those not named; or such that all classes have the same
        weight in sum; or all 1. Only their ratios count.
    classes : ndarray of shape (n_classes,)
        Labels.
    codes, weight : ndarray of shape (n,)
        Class codes and weights of the rows.
    owner : str
        Name of the estimator, for messages.

    Returns
    -------
    ndarray of shape (n_classes,)

    Raises
    ------
    ValueError
        If a label of the dict is unknown, or a factor is negative or not finite, or all
        are zero.
    """
    if class_weight == "balanced":
        totals = np.bincount(codes, weight, minlength=len(classes))
        balanced: NDArray[np.float64] = totals.sum() / (len(classes) * totals)
        return balanced
    factors: NDArray[np.float64] = compute_class_weight(
        class_weight, classes=classes, y=classes[codes]
    )
    if not np.isfinite(factors).all() or (factors < 0).any() or not factors.any():
        raise ValueError(
            f"The 'class_weight' parameter of {owner} must hold finite weights, none "
            f"negative and at least one above zero. Got {class_weight!r} instead."
        )
    return scale_below_one(factors)
