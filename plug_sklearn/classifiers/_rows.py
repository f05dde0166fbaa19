"""Samples, labels and weights → rows that a network trains on, and their batches."""

from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.utils.data import Dataset

#: The class code of rows that do not count, as torch's own cross-entropy has it.
NO_CLASS = -100
#: Samples, and their class codes and weights.
Batch = tuple[Tensor, tuple[Tensor, Tensor]]


def share_tensor(X: NDArray[Any]) -> Tensor:
    """Make a tensor of an array, in its memory where torch can read that."""
    return torch.from_numpy(np.require(X, requirements=["C", "W"]))


class Rows(Dataset[tuple[Tensor, object]]):
    """Rows in the memory of one device.

    Parameters
    ----------
    X : ndarray of shape (n_given, ...)
        Samples; become float32, and on the CPU stay where they are if they are.
    y : ndarray of shape (n,), default=None
        Class codes; become int64.
    weight : ndarray of shape (n,), default=None
        Weights; scaled to average 1, become float32.
    device : str or torch.device, default="cpu"
        Where the rows are put.
    places : ndarray of int, shape (n,), default=None
        Where in ``X`` the rows are; None: they are all of it, in order.
    """

    def __init__(
        self,
        X: NDArray[np.floating],
        y: NDArray[np.intp] | None = None,
        weight: NDArray[np.float64] | None = None,
        device: str | torch.device = "cpu",
        places: NDArray[np.intp] | None = None,
    ) -> None:
        self.X = share_tensor(X).to(device, torch.float32)
        self.y = None if y is None else torch.tensor(y, device=device)
        self.places = None if places is None else torch.tensor(places, device=device)
        self.weight = None
        if weight is not None:
            scaled = weight / weight.mean()
            self.weight = torch.tensor(scaled, dtype=torch.float32, device=device)

    def __len__(self) -> int:
        return len(self.X if self.places is None else self.places)

    def __getitem__(self, index: slice | Tensor) -> tuple[Tensor, object]:
        X = self.X[index if self.places is None else self.places[index]]
        if self.y is None or self.weight is None:
            return X, torch.zeros(0)
        return X, (self.y[index], self.weight[index])

    def are_equal(self) -> bool:
        """Tell whether all samples are equal."""
        places = range(len(self.X)) if self.places is None else self.places.tolist()
        first = self.X[places[0]]
        return all(torch.equal(self.X[place], first) for place in places)

    def put_in_order(self) -> Tensor:
        """Give the samples, row by row; a copy where ``places`` are given."""
        return self.X if self.places is None else self.X[self.places]


def arrange_members(
    chosen: NDArray[np.bool_],
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Arrange the rows of several members in columns.

    Parameters
    ----------
    chosen : ndarray of bool, shape (n_members, n)
        The rows of each member, one at least.

    Returns
    -------
    positions : ndarray of int, shape (n_most, n_members)
        Positions of rows; where a member has fewer than another, again from its first.
    is_fill : ndarray of bool, shape (n_most, n_members)
        Where that is so.
    """
    n_rows = chosen.sum(axis=1)
    columns = [np.resize(np.flatnonzero(own), n_rows.max()) for own in chosen]
    return np.stack(columns, axis=1), np.arange(n_rows.max())[:, None] >= n_rows


class MemberRows(Dataset[tuple[Tensor, tuple[Tensor, Tensor]]]):
    """Rows of each of several networks that train side by side.

    Where one has fewer rows than another, some of its own fill up its column: without
    a class or weight, they count in nothing but the statistics of a batch.

    Parameters
    ----------
    rows : Rows
        All rows, with labels and weights.
    chosen : ndarray of bool, shape (n_members, n)
        The rows of each member, one at least.

    Attributes
    ----------
    positions, y, weight : Tensor of shape (n_most, n_members)
        Position in ``rows``, class code or ``NO_CLASS``, and weight: by member, in
        columns. Weights average 1.
    n_probes : int
        Probes that these are the members of; all have the same number.
    """

    def __init__(self, rows: Rows, chosen: NDArray[np.bool_]) -> None:
        if rows.y is None or rows.weight is None:
            raise TypeError("rows of members must have labels and weights")
        positions, fills = arrange_members(chosen)
        device = rows.X.device
        self.rows = rows
        self.positions = torch.tensor(positions, device=device)
        is_fill = torch.tensor(fills, device=device)
        self.y = rows.y[self.positions].masked_fill(is_fill, NO_CLASS)
        weight = rows.weight[self.positions].masked_fill(is_fill, 0)
        self.weight = weight / weight.mean()
        self.n_probes = 1
        self.memory: Tensor | None = None

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: slice) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        positions, X = self.positions[index], self.rows.X
        places = positions.flatten()
        if self.rows.places is not None:
            places = self.rows.places[places]
        # Several times faster than X[places].
        memory = None if self.memory is None else self.memory[: len(places)]
        taken = torch.index_select(X, 0, places, out=memory)
        shaped = taken.view(*positions.shape, *X.shape[1:])
        return shaped, (self.y[index], self.weight[index])

    def put_batches_in_one_place(self, batch_size: int) -> None:
        """Put the samples of each batch over those of the last.

        New memory for large batches takes as long as to fill it.
        """
        # A last batch of one row joins the one before.
        n_rows = min(batch_size + 1, len(self))
        n_samples = n_rows * self.positions.shape[1]
        self.memory = self.rows.X.new_empty(n_samples, *self.rows.X.shape[1:])

    def keep_probes(self, kept: Sequence[bool]) -> "MemberRows":
        """Take the rows of some of the probes."""
        n_members = self.positions.shape[1] // self.n_probes
        columns = torch.tensor(kept).repeat_interleave(n_members)
        taken = copy(self)
        taken.positions = self.positions[:, columns]
        taken.y = self.y[:, columns]
        taken.weight = self.weight[:, columns]
        taken.n_probes = sum(kept)
        return taken

    def shuffle(self, generator: Generator) -> "MemberRows":
        """Put the rows of each member of a probe in an order of its own."""
        n_rows, n_members = self.positions.shape
        keys = torch.rand(n_rows, n_members // self.n_probes, generator=generator)
        order = keys.argsort(dim=0).to(self.positions.device).repeat(1, self.n_probes)
        shuffled = copy(self)
        shuffled.positions = self.positions.gather(0, order)
        shuffled.y = self.y.gather(0, order)
        shuffled.weight = self.weight.gather(0, order)
        return shuffled


def join_probes(parts: Sequence[MemberRows], X: Tensor) -> MemberRows:
    """Put the members of several probes side by side.

    Parameters
    ----------
    parts : sequence of MemberRows
        Rows of the members of each probe, as many of each.
    X : Tensor of shape (n, ...)
        Samples of the first probe, of the second and so on.

    Returns
    -------
    MemberRows
        Rows of the members of all.
    """
    joined = copy(parts[0])
    joined.rows = copy(joined.rows)
    joined.rows.X, joined.rows.places = X, None
    starts = np.cumsum([0, *(len(part.rows) for part in parts[:-1])]).tolist()
    positions = [part.positions + at for part, at in zip(parts, starts, strict=True)]
    joined.positions = torch.cat(positions, dim=1)
    joined.y = torch.cat([part.y for part in parts], dim=1)
    joined.weight = torch.cat([part.weight for part in parts], dim=1)
    joined.n_probes = len(parts)
    return joined


class Batches:
    """Batches of rows, taken by index without a copy row by row.

    Parameters
    ----------
    rows : Rows or MemberRows
        What to take from.
    batch_size : int
        Rows of a batch. Batch norm has no variance for one row, so a last batch of one
        row joins the batch before.
    generator : torch.Generator, default=None
        Shuffles rows of members anew at each iteration; None: in order.
    """

    def __init__(
        self,
        rows: Rows | MemberRows,
        batch_size: int,
        generator: Generator | None = None,
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
        rows, n_rows, n_batches = self.rows, len(self.rows), len(self)
        if self.generator is not None and isinstance(rows, MemberRows):
            rows = rows.shuffle(self.generator)
        for number in range(n_batches):
            start = number * self.batch_size
            end = n_rows if number == n_batches - 1 else start + self.batch_size
            yield rows[slice(start, end)]
