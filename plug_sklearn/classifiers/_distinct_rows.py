"""Rows → those that differ, each with the weight of all that are the same."""

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

#: Bounds the memory of a copy.
ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class DistinctRows:
    """The different rows of a training set.

    Attributes
    ----------
    index : ndarray of int
        Positions of the rows, one of each, in an order that only their values decide.
    weight : ndarray of float64
        Summed weight of the rows that are the same.
    sample : ndarray of int
        Ascending from 0; equal for rows whose samples are equal, whatever their class
        and group.
    """

    index: NDArray[np.intp]
    weight: NDArray[np.float64]
    sample: NDArray[np.intp]


def find_distinct_rows(
    X: NDArray[np.float32],
    codes: NDArray[np.intp],
    weight: NDArray[np.float64],
    groups: NDArray[np.intp] | None = None,
) -> DistinctRows:
    """Find the rows that differ, and sum the weights of those that do not.

    A row that is there twice thereby counts exactly as one of weight 2, and the order
    of the rows changes nothing. Which rows have equal samples is told too, so that a
    sample with several labels is never on both sides of a validation split.

    Parameters
    ----------
    X : ndarray of shape (n, ...), float32
        Samples.
    codes, groups : ndarray of shape (n,)
        Class codes, and group codes if there are groups: rows that differ in these
        differ.
    weight : ndarray of shape (n,)
        Weights, not all 0; rows of weight 0 are left out.

    Returns
    -------
    DistinctRows
        At most n rows.
    """
    kept = np.flatnonzero(weight)
    _, value_ids = np.unique(_digest_rows(X, kept), return_inverse=True)
    keys = np.stack(
        [
            value_ids,
            codes[kept],
            np.zeros_like(kept) if groups is None else groups[kept],
        ]
    )
    _, first, inverse = np.unique(keys, axis=1, return_index=True, return_inverse=True)
    summed = np.bincount(inverse.ravel(), weight[kept])
    sample = keys[0, first]
    return DistinctRows(kept[first], summed.astype(np.float64), sample)


def _digest_rows(X: NDArray[np.float32], kept: NDArray[np.intp]) -> NDArray[np.void]:
    # Sixteen bytes a row are sorted, rather than the rows: theirs is no other order
    # than one that only values decide.
    digests = np.empty(len(kept), dtype="V16")
    for start in range(0, len(kept), ROWS_AT_ONCE):
        chosen = kept[start : start + ROWS_AT_ONCE]
        # Adding 0 turns -0.0 into 0.0, which is the same number in other bytes.
        values = np.ascontiguousarray(X[chosen])
        values += 0
        for number, row in enumerate(values, start):
            digests[number] = np.void(blake2b(row, digest_size=16).digest())
    return digests
