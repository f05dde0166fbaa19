"""Samples, labels and weights → rows that a network trains on, and their batches."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.utils.data import Dataset


@dataclass(frozen=True)
class DistinctRows:
    """The different rows of a training set.

    Attributes
    ----------
    index : ndarray of int
        Positions of the rows, one of each, in an order that only their values decide.
    weight : ndarray of float64
        Summed weight of the rows that are the same.
    """

    index: NDArray[np.intp]
    weight: NDArray[np.float64]


def find_distinct_rows(
    X: NDArray[np.float32],
    codes: NDArray[np.intp],
    weight: NDArray[np.float64],
    groups: NDArray[np.intp] | None = None,
) -> DistinctRows:
    """Find the rows that differ, and sum the weights of those that do not.

    A row that is there twice thereby counts exactly as one of weight 2; it is never on
    both sides of a validation split; and the order of the rows changes nothing.

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
    weighted = X if len(kept) == len(X) else X[kept]
    # Adding 0 turns -0.0 into 0.0, which is the same number in other bytes.
    values = np.add(weighted.reshape(len(kept), -1), np.float32(0), order="C")
    row_bytes = values.view(np.dtype((np.void, values.shape[1] * values.itemsize)))
    _, value_ids = np.unique(row_bytes.ravel(), return_inverse=True)
    keys = np.stack(
        [
            value_ids,
            codes[kept],
            np.zeros_like(kept) if groups is None else groups[kept],
        ]
    )
    _, first, inverse = np.unique(keys, axis=1, return_index=True, return_inverse=True)
    summed = np.bincount(inverse.ravel(), weight[kept])
    return DistinctRows(kept[first], summed.astype(np.float64))


class Rows(Dataset[tuple[Tensor, object]]):
    """Rows in the memory of one device.

    Parameters
    ----------
    X : ndarray of shape (n, ...)
        Samples; become float32.
    y : ndarray of shape (n,), default=None
        Class codes; become int64.
    weight : ndarray of shape (n,), default=None
        Weights; scaled to average 1, become float32.
    device : str or torch.device, default="cpu"
        Where the rows are put.
    """

    def __init__(
        self,
        X: NDArray[np.floating],
        y: NDArray[np.intp] | None = None,
        weight: NDArray[np.float64] | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.X = torch.tensor(X, dtype=torch.float32, device=device)
        self.y = None if y is None else torch.tensor(y, device=device)
        self.weight = None
        if weight is not None:
            scaled = weight / weight.mean()
            self.weight = torch.tensor(scaled, dtype=torch.float32, device=device)

    def __len__(self) -> int:
        return len(self.X)

    def __getitem__(self, index: slice | Tensor) -> tuple[Tensor, object]:
        if self.y is None or self.weight is None:
            return self.X[index], torch.zeros(0)
        return self.X[index], (self.y[index], self.weight[index])


class Batches:
    """Batches of rows, taken by index without a copy row by row.

    Parameters
    ----------
    rows : Rows
        What to take from.
    batch_size : int
        Rows of a batch. Batch norm has no variance for one row, so a last batch of one
        row joins the batch before.
    generator : torch.Generator, default=None
        Shuffles the rows anew at each iteration; None: in order.
    """

    def __init__(
        self, rows: Rows, batch_size: int, generator: Generator | None = None
    ) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.generator = generator

    def __len__(self) -> int:
        n_rows = len(self.rows)
        n_batches = -(-n_rows // self.batch_size)
        leaves_one = n_rows % self.batch_size == 1
        return max(1, n_batches - leaves_one)

    def __iter__(self) -> Iterator[tuple[Tensor, object]]:
        n_rows, n_batches = len(self.rows), len(self)
        order = None
        if self.generator is not None:
            order = torch.randperm(n_rows, generator=self.generator)
            order = order.to(self.rows.X.device)
        for number in range(n_batches):
            start = number * self.batch_size
            end = n_rows if number == n_batches - 1 else start + self.batch_size
            taken = slice(start, end)
            yield self.rows[taken if order is None else order[taken]]
