"""Rows of samples, the same on a device, and the batches that networks read."""

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.utils.data import Dataset

from plug_sklearn.classifiers._layers import Standardise
from plug_sklearn.classifiers._splitting import arrange_members

#: Class code of rows that are ignored, the default of torch's cross-entropy.
NO_CLASS = -100
#: Samples, and their class codes and weights.
Batch = tuple[Tensor, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Rows:
    """Checked samples with their labels and weights.

    ``X`` (n_given, ...) holds the samples as they were given, since a sorted copy would
    double the memory; ``places`` (n,) are the positions of the rows in it, or None if
    they are all of it, in order. ``codes`` (n,) are class codes, ``weight`` (n,) sample
    weights and ``groups`` (n,) group codes, if there are groups. ``sample_of_row`` (n,)
    ascends from 0 and is equal for rows with equal samples; None: all differ.
    ``held_out`` (n_members, n) marks the rows that each member is validated on; None:
    all rows are used by all members.
    """

    X: NDArray[Any]
    codes: NDArray[np.intp]
    weight: NDArray[np.float64]
    groups: NDArray[np.intp] | None = None
    places: NDArray[np.intp] | None = None
    sample_of_row: NDArray[np.intp] | None = None
    held_out: NDArray[np.bool_] | None = None

    def compute_class_shares(
        self, class_factors: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Compute the share of each class in the weight of all rows."""
        totals = class_factors * self.sum_by_class(len(class_factors))
        shares: NDArray[np.float64] = totals / totals.sum()
        return shares

    def sum_by_class(self, n_classes: int) -> NDArray[np.float64]:
        """Sum the weights of the rows of each class."""
        sums = np.bincount(self.codes, self.weight, minlength=n_classes)
        return sums.astype(np.float64)

    def list_validated(self) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """List class codes and weights of validation rows in the order of batches."""
        if self.held_out is None:
            return self.codes, self.weight
        positions, is_fill = arrange_members(self.held_out)
        order = positions[~is_fill]
        return self.codes[order], self.weight[order]

    def split_by_member(self) -> "list[tuple[int | None, Rows]]":
        """List members and the rows of each, or None and all rows."""
        if self.held_out is None:
            return [(None, self)]
        return [(member, self._take(own)) for member, own in enumerate(self.held_out)]

    def _take(self, chosen: NDArray[np.bool_]) -> "Rows":
        places = chosen if self.places is None else self.places[chosen]
        return Rows(self.X[places], self.codes[chosen], self.weight[chosen])

    def put_on_device(
        self, class_factors: NDArray[np.float64], device: torch.device
    ) -> "MemberRows":
        """Put rows on a device, with weights multiplied by the factors of classes.

        On the CPU, samples in float32 are not copied.
        """
        weight = self.weight * class_factors[self.codes]
        scaled = weight / weight.mean()
        return MemberRows(
            share_tensor(self.X).to(device, torch.float32),
            torch.tensor(self.codes, device=device),
            torch.tensor(scaled, dtype=torch.float32, device=device),
            None if self.places is None else torch.tensor(self.places, device=device),
        )


def share_tensor(X: NDArray[Any]) -> Tensor:
    """Make a tensor of an array, in its memory where torch can read that."""
    return torch.from_numpy(np.require(X, requirements=["C", "W"]))


class MemberRows(Dataset[Batch]):
    """Rows on a device: the same for all members of an ensemble, or each its own.

    Row i is ``X[places[i]]``, or ``X[i]`` if ``places`` is None. If all members use all
    rows, ``positions`` is None, and ``y`` and ``weight`` have the shape (n,). Otherwise
    these three have the shape (n_most, n_members): column k holds the rows of member k.
    A member with fewer rows than another has its column filled with rows of its own,
    without a class and weight, which only affect the statistics of batch norm.

    ``weight`` averages 1. ``all_weight`` (n,) are the weights of all rows. The columns
    may belong to the members of ``n_probes`` classifiers that are trained jointly.
    """

    def __init__(
        self, X: Tensor, y: Tensor, weight: Tensor, places: Tensor | None = None
    ) -> None:
        self.X, self.places = X, places
        self.y, self.weight, self.all_weight = y, weight, weight
        self.positions: Tensor | None = None
        self.n_probes = 1
        self.memory: Tensor | None = None

    @property
    def n_members(self) -> int:
        """Members of each classifier that have rows of their own; 1 if they share."""
        if self.positions is None:
            return 1
        return self.positions.shape[1] // self.n_probes

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: slice) -> Batch:
        targets = self.y[index], self.weight[index]
        if self.positions is None:
            at = index if self.places is None else self.places[index]
            return self.X[at], targets
        positions = self.positions[index]
        places = positions.flatten()
        if self.places is not None:
            places = self.places[places]
        # Several times faster than X[places].
        memory = None if self.memory is None else self.memory[: len(places)]
        taken = torch.index_select(self.X, 0, places, out=memory)
        return taken.view(*positions.shape, *self.X.shape[1:]), targets

    def are_equal(self) -> bool:
        """Return whether all samples are equal."""
        places = range(len(self.X)) if self.places is None else self.places.tolist()
        first = self.X[places[0]]
        return all(torch.equal(self.X[place], first) for place in places)

    def teach_standardise(self, layer: Standardise) -> None:
        """Compute the means and deviations of the units of all samples."""
        layer.learn(self.X, self.all_weight, self.places)

    def sample_inputs(
        self,
        module: Any,  # noqa: ANN401 - either network
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return standardised inputs, and their weights, to find components of."""
        inputs = module.read_features(self.put_in_order()).flatten(end_dim=-2).cpu()
        weight = self.all_weight.cpu()
        shared = weight.repeat_interleave(len(inputs) // len(weight))
        return inputs.numpy(), shared.numpy()

    def put_in_order(self) -> Tensor:
        """Return the samples, row by row; a copy if there are ``places``."""
        return self.X if self.places is None else self.X[self.places]

    def choose(self, chosen: NDArray[np.bool_]) -> "MemberRows":
        """Assign to each member the rows that ``chosen`` (n_members, n) marks."""
        positions, fills = arrange_members(chosen)
        device = self.X.device
        taken = copy(self)
        taken.positions = torch.tensor(positions, device=device)
        is_fill = torch.tensor(fills, device=device)
        taken.y = self.y[taken.positions].masked_fill(is_fill, NO_CLASS)
        weight = self.weight[taken.positions].masked_fill(is_fill, 0)
        taken.weight = weight / weight.mean()
        return taken

    def reuse_memory(self, batch_size: int) -> None:
        """Write the samples of each batch over those of the last.

        Allocating memory for a large batch takes as long as filling it.
        """
        n_columns = 1 if self.positions is None else self.positions.shape[1]
        # A last batch of one row joins the one before.
        n_samples = min(batch_size + 1, len(self)) * n_columns
        self.memory = self.X.new_empty(n_samples, *self.X.shape[1:])

    def keep_probes(self, kept: Sequence[bool]) -> "MemberRows":
        """Keep the rows of some of the classifiers that are trained jointly."""
        columns = torch.tensor(kept).repeat_interleave(self.n_members)
        taken = self._rearrange(lambda values: values[:, columns])
        taken.n_probes = sum(kept)
        return taken

    def shuffle(self, generator: Generator) -> "MemberRows":
        """Shuffle the rows of each member, in the same way for each classifier."""
        keys = torch.rand(len(self), self.n_members, generator=generator)
        order = keys.argsort(dim=0).to(self.X.device).repeat(1, self.n_probes)
        return self._rearrange(lambda values: values.gather(0, order))

    def _rearrange(self, take: Callable[[Tensor], Tensor]) -> "MemberRows":
        taken = copy(self)
        taken.positions = take(cast(Tensor, self.positions))
        taken.y, taken.weight = take(self.y), take(self.weight)
        return taken


def wrap_samples(X: NDArray[Any], y: object = None) -> MemberRows:
    """Make rows of unlabelled samples, for skorch's own ``predict_proba``."""
    none = torch.zeros(len(X))
    return MemberRows(share_tensor(X).to(torch.float32), none, none)


def join_probes(tables: Sequence[MemberRows], X: Tensor) -> MemberRows:
    """Join the rows of several classifiers, each with as many members.

    ``X`` (n, ...) holds all rows of the first, then those of the second, and so on.
    """
    joined = copy(tables[0])
    joined.X, joined.places = X, None
    lengths = [len(table.all_weight) for table in tables]
    starts = np.cumsum([0, *lengths[:-1]]).tolist()
    joined.positions = torch.cat(
        [
            cast(Tensor, table.positions) + start
            for table, start in zip(tables, starts, strict=True)
        ],
        dim=1,
    )
    joined.y = torch.cat([table.y for table in tables], dim=1)
    joined.weight = torch.cat([table.weight for table in tables], dim=1)
    joined.n_probes = len(tables)
    return joined


class Batches:
    """Consecutive batches of rows, shuffled at each iteration if given a generator.

    A last batch of one row joins the batch before, since batch norm has no variance of
    one row.
    """

    def __init__(
        self, rows: MemberRows, batch_size: int, generator: Generator | None = None
    ) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.generator = generator

    def __len__(self) -> int:
        n_rows = len(self.rows)
        n_batches = -(-n_rows // self.batch_size)
        leaves_one = n_rows % self.batch_size == 1
        return max(1, n_batches - leaves_one)

    def __iter__(self) -> Iterator[Batch]:
        rows, n_rows, n_batches = self.rows, len(self.rows), len(self)
        if self.generator is not None:
            rows = rows.shuffle(self.generator)
        for number in range(n_batches):
            start = number * self.batch_size
            end = n_rows if number == n_batches - 1 else start + self.batch_size
            yield rows[slice(start, end)]
