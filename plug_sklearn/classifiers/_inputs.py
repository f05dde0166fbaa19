"""What users pass to fit and predict → checked rows."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d, validate_data

from plug_sklearn.classifiers._distinct_rows import find_distinct_rows
from plug_sklearn.classifiers._labels import (
    encode_labels,
    match_labels,
    read_sample_weight,
)
from plug_sklearn.classifiers._rows import MemberRows, Rows, arrange_members
from plug_sklearn.classifiers._splitting import choose_validation_rows


@dataclass(frozen=True)
class LabelledRows:
    """Samples and what is known of them.

    Attributes
    ----------
    X : ndarray of shape (n_given, ...), float32
        Samples as they were given; a copy in order would double the memory.
    codes : ndarray of shape (n,)
        Class codes.
    weight : ndarray of shape (n,)
        Sample weights.
    groups : ndarray of shape (n,) or None
        Group codes.
    places : ndarray of int, shape (n,), or None
        Where in ``X`` the samples are; None: they are all of it, in order.
    sample_of_row : ndarray of int, shape (n,), or None
        Ascending from 0; equal for rows whose samples are equal. None: all differ.
    """

    X: NDArray[np.float32]
    codes: NDArray[np.intp]
    weight: NDArray[np.float64]
    groups: NDArray[np.intp] | None = None
    places: NDArray[np.intp] | None = None
    sample_of_row: NDArray[np.intp] | None = None

    def take(self, chosen: NDArray[Any]) -> "LabelledRows":
        """Take rows, by position or mask, without their groups."""
        places = chosen if self.places is None else self.places[chosen]
        return LabelledRows(self.X[places], self.codes[chosen], self.weight[chosen])

    def share_by_class(self, factors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Compute the part of each class in the weight of all rows."""
        totals = factors * np.bincount(self.codes, self.weight, minlength=len(factors))
        shares: NDArray[np.float64] = totals / totals.sum()
        return shares

    def put_on(self, device: torch.device, factors: NDArray[np.float64]) -> Rows:
        """Put the rows on a device, their weights times the factors of the classes."""
        weight = self.weight * factors[self.codes]
        return Rows(self.X, self.codes, weight, device, self.places)


@dataclass(frozen=True)
class ValidationRows:
    """Rows to validate on.

    Attributes
    ----------
    rows : LabelledRows
        Rows.
    held_out : ndarray of bool, shape (n_members, n), or None
        Those that each member is validated on; None: all, by the mean of the members.
    """

    rows: LabelledRows
    held_out: NDArray[np.bool_] | None = None

    def count(self) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Give class codes and weights of all that counts, in the order of batches."""
        if self.held_out is None:
            return self.rows.codes, self.rows.weight
        positions, is_fill = arrange_members(self.held_out)
        order = positions[~is_fill]
        return self.rows.codes[order], self.rows.weight[order]

    def split(self) -> list[tuple[int | None, LabelledRows]]:
        """List members and the rows of each; or None, for all members, and all rows."""
        if self.held_out is None:
            return [(None, self.rows)]
        return [
            (member, self.rows.take(own)) for member, own in enumerate(self.held_out)
        ]

    def put_on(
        self, device: torch.device, factors: NDArray[np.float64], stored: Rows
    ) -> Rows | MemberRows:
        """Put them on a device, or take them from the rows stored there."""
        if self.held_out is None:
            return self.rows.put_on(device, factors)
        return MemberRows(stored, self.held_out)


def draw_seeds(random_state: object) -> list[int]:
    """Draw a seed for the validation split and one for the net.

    Parameters
    ----------
    random_state : int, RandomState or None
        None: fresh entropy from the system, so that numpy's global generator, which is
        what None usually means, stays as it is.

    Returns
    -------
    list of int
        Two seeds.
    """
    if random_state is None:
        sequence = np.random.SeedSequence()
    else:
        generator = check_random_state(random_state)
        sequence = np.random.SeedSequence(generator.randint(2**31))
    seeds: list[int] = sequence.generate_state(2).tolist()
    return seeds


def read_rows(
    estimator: BaseEstimator,
    X: ArrayLike,
    y: ArrayLike,
    sample_weight: ArrayLike | None,
    groups: ArrayLike | None,
) -> LabelledRows:
    """Check the arguments of fit and keep the rows that are distinct.

    Parameters
    ----------
    estimator : BaseEstimator
        Is given ``input_shape_``, ``classes_`` and what ``validate_data`` gives.
    X, y, sample_weight, groups : array-like
        The arguments of its ``fit``.

    Returns
    -------
    LabelledRows
        Rows of weight above 0, no two the same.
    """
    owner = type(estimator).__name__
    # What float32 cannot hold becomes infinite, and an error that says so.
    with np.errstate(over="ignore"):
        samples, labels = validate_data(
            estimator, X, y, dtype=np.float32, allow_nd=True
        )
    if not samples.size:
        raise ValueError(
            f"X given to {owner} must have no empty axis. Got {samples.shape} instead."
        )
    check_classification_targets(labels)
    weight = read_sample_weight(sample_weight, samples, owner)
    estimator.input_shape_ = samples.shape[1:]
    estimator.classes_, codes = encode_labels(labels, weight, owner)
    group_codes = None
    if groups is not None:
        group_codes = _number_groups(groups, len(samples), owner)
    distinct = find_distinct_rows(samples, codes, weight, group_codes)
    if group_codes is not None:
        # Numbered anew: a group may have lost all its rows.
        _, group_codes = np.unique(group_codes[distinct.index], return_inverse=True)
    index = distinct.index
    return LabelledRows(
        samples, codes[index], distinct.weight, group_codes, index, distinct.sample
    )


def _number_groups(groups: ArrayLike, n_samples: int, owner: str) -> NDArray[np.intp]:
    given = np.asarray(groups)
    if given.shape in ((n_samples,), (n_samples, 1)):
        # Objects that no order is known of are no names of groups.
        with suppress(TypeError):
            _, codes = np.unique(given.ravel(), return_inverse=True)
            numbers: NDArray[np.intp] = codes
            return numbers
    raise ValueError(
        f"The 'groups' given to {owner} must be {n_samples} numbers or strings, one a "
        f"sample. Got {given.dtype} of shape {given.shape} instead."
    )


def read_samples(estimator: BaseEstimator, X: ArrayLike) -> NDArray[np.float32]:
    """Check samples to predict.

    Parameters
    ----------
    estimator : BaseEstimator
        Fitted.
    X : array-like of shape (n, ...)
        Samples.

    Returns
    -------
    ndarray of shape (n, ...), float32

    Raises
    ------
    ValueError
        If they are not of the shape seen in ``fit``.
    """
    with np.errstate(over="ignore"):
        samples: NDArray[np.float32] = validate_data(
            estimator, X, dtype=np.float32, allow_nd=True, reset=False
        )
    if samples.shape[1:] != estimator.input_shape_:
        raise ValueError(
            f"X given to {type(estimator).__name__} must have samples of shape "
            f"{estimator.input_shape_}, as in fit. Got {samples.shape[1:]} instead."
        )
    return samples


def read_validation_rows(
    estimator: BaseEstimator, X_val: ArrayLike | None, y_val: ArrayLike | None
) -> ValidationRows:
    """Check the validation rows given to fit.

    Parameters
    ----------
    estimator : BaseEstimator
        Has read its training rows.
    X_val : array-like of shape (n, ...)
        Samples.
    y_val : array-like of shape (n,)
        Labels, all among the classes of the training rows.

    Returns
    -------
    ValidationRows
        With weights of 1, for all members.

    Raises
    ------
    ValueError
        If one of the two is missing, or they do not suit the training rows.
    """
    if X_val is None or y_val is None:
        raise ValueError(
            f"The 'X_val' and 'y_val' given to {type(estimator).__name__} must come "
            f"together. Got {'y_val' if X_val is None else 'X_val'} alone instead."
        )
    samples = read_samples(estimator, X_val)
    labels = column_or_1d(y_val)
    check_consistent_length(samples, labels)
    codes = match_labels(labels, estimator.classes_, type(estimator).__name__)
    return ValidationRows(LabelledRows(samples, codes, np.ones(len(codes))))


def hold_out_rows(
    rows: LabelledRows, fraction: float, seed: int, n_members: int = 1
) -> ValidationRows | None:
    """Choose the rows that each member is validated on, and does not train on.

    Parameters
    ----------
    rows : LabelledRows
        All rows.
    fraction : float
        Part to validate on.
    seed : int
        Seed of the choice.
    n_members : int, default=1
        Networks to choose for.

    Returns
    -------
    ValidationRows or None
        None where there are too few rows; training then is on all.
    """
    rng = np.random.default_rng(seed)
    held_out = choose_validation_rows(
        rows.codes,
        fraction,
        rng,
        rows.groups,
        n_members,
        sample_of_row=rows.sample_of_row,
        weight=rows.weight,
    )
    return None if held_out is None else ValidationRows(rows, held_out)
