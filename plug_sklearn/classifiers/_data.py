"""Check what users pass to ``fit`` and ``predict``, and hold out validation rows."""

from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d, validate_data

from plug_sklearn._sklearn import check_sample_weight, explaining_texts
from plug_sklearn.classifiers._sample_shape import refuse_token_labels, refuse_tokens
from plug_sklearn.classifiers._splitting import arrange_members, choose_validation_rows

ClassWeight = dict[Any, float] | str | None

#: Rows that are copied at once to be hashed.
ROWS_AT_ONCE = 64


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


def draw_seeds(random_state: object) -> list[int]:
    """Draw a seed for the validation split and one for the network.

    With None, they come from the system's entropy, so that numpy's global generator,
    which None usually means, stays as it is.
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
) -> Rows:
    """Check the arguments of ``fit`` and merge equal rows.

    Sets ``input_shape_``, ``classes_`` and what ``validate_data`` sets.
    """
    owner = type(estimator).__name__
    refuse_tokens(X, owner)
    refuse_token_labels(y, owner)
    # Values beyond float32 become infinite, which validate_data then refuses.
    with np.errstate(over="ignore"), explaining_texts(owner):
        samples, labels = validate_data(
            estimator, X, y, dtype=np.float32, allow_nd=True
        )
    refuse_mixed_labels(labels, owner)
    if not samples.size:
        raise ValueError(
            f"X given to {owner} must not have an axis of length 0. Got shape "
            f"{samples.shape} instead."
        )
    check_classification_targets(labels)
    weight = read_sample_weight(sample_weight, samples, owner)
    estimator.input_shape_ = samples.shape[1:]
    estimator.classes_, codes = encode_labels(labels, weight, owner)
    group_codes = None
    if groups is not None:
        group_codes = number_groups(groups, len(samples), owner)
    index, weight, sample_of_row = merge_equal_rows(samples, codes, weight, group_codes)
    if group_codes is not None:
        # Numbered again, since a group may have lost all its rows.
        _, group_codes = np.unique(group_codes[index], return_inverse=True)
    return Rows(samples, codes[index], weight, group_codes, index, sample_of_row)


def refuse_mixed_labels(labels: NDArray[Any], owner: str) -> None:
    """Refuse None among labels, and strings among numbers, which have no order."""
    if labels.dtype != object:
        return
    missing = [row for row, label in enumerate(labels) if label is None]
    if missing:
        more = ", ..." if len(missing) > 5 else ""
        listed = ", ".join(map(str, missing[:5]))
        raise ValueError(
            f"The labels given to {owner} must not be missing. Got None for "
            f"{len(missing)} of {len(labels)} rows, at positions [{listed}{more}]."
        )
    if len({isinstance(label, str) for label in labels}) > 1:
        kinds = sorted({type(label).__name__ for label in labels})
        raise ValueError(
            f"The labels given to {owner} must be all strings or all numbers. "
            f"Got {kinds} instead."
        )


def number_groups(groups: ArrayLike, n_samples: int, owner: str) -> NDArray[np.intp]:
    """Return the number of each sample's group, counted from 0."""
    given = np.asarray(groups)
    if given.shape in ((n_samples,), (n_samples, 1)):
        missing = np.flatnonzero([one is None or one != one for one in given.flat])
        if len(missing):
            raise ValueError(
                f"The 'groups' given to {owner} must not be missing. Got "
                f"{len(missing)} of {n_samples} that are, the first at position "
                f"{missing[0]}."
            )
        # Objects that cannot be sorted are refused below.
        with suppress(TypeError):
            _, codes = np.unique(given.ravel(), return_inverse=True)
            numbers: NDArray[np.intp] = codes
            return numbers
    raise ValueError(
        f"The 'groups' given to {owner} must be {n_samples} numbers or strings, one "
        f"for each sample. Got {given.dtype} of shape {given.shape} instead."
    )


def read_samples(estimator: BaseEstimator, X: ArrayLike) -> NDArray[np.float32]:
    """Check samples to predict, which must have the shape of those of ``fit``."""
    owner = type(estimator).__name__
    refuse_tokens(X, owner)
    with np.errstate(over="ignore"), explaining_texts(owner):
        samples: NDArray[np.float32] = validate_data(
            estimator, X, dtype=np.float32, allow_nd=True, reset=False
        )
    if samples.shape[1:] != estimator.input_shape_:
        raise ValueError(
            f"X given to {owner} must have samples of shape "
            f"{estimator.input_shape_}, as in fit. Got {samples.shape[1:]} instead."
        )
    return samples


def read_validation_rows(
    estimator: BaseEstimator, X_val: ArrayLike | None, y_val: ArrayLike | None
) -> Rows:
    """Check the validation rows given to ``fit``, after its training rows."""
    if X_val is None or y_val is None:
        raise ValueError(
            f"The 'X_val' and 'y_val' of {type(estimator).__name__}.fit must be "
            f"given together. Got {'y_val' if X_val is None else 'X_val'} alone "
            "instead."
        )
    samples = read_samples(estimator, X_val)
    labels = column_or_1d(y_val)
    check_consistent_length(samples, labels)
    classes = estimator.classes_
    unknown = np.setdiff1d(labels, classes)
    if len(unknown):
        raise ValueError(
            f"The 'y_val' given to {type(estimator).__name__} must only contain labels "
            f"of y, which are {classes.tolist()}. Got {unknown.tolist()} instead."
        )
    codes = np.searchsorted(classes, labels)
    return Rows(samples, codes, np.ones(len(codes)))


def hold_out_rows(
    rows: Rows, fraction: float, seed: int, n_members: int = 1
) -> Rows | None:
    """Mark the rows that each member is validated on; None if there are too few."""
    held_out = choose_validation_rows(
        rows.codes,
        fraction,
        np.random.default_rng(seed),
        rows.groups,
        n_members,
        sample_of_row=rows.sample_of_row,
        weight=rows.weight,
    )
    return None if held_out is None else replace(rows, held_out=held_out)


def read_sample_weight(
    sample_weight: ArrayLike | None, X: NDArray[Any], owner: str
) -> NDArray[np.float64]:
    """Check sample weights, and scale them so that the largest is in [0.5, 1).

    Raises a ValueError if one is negative or not finite, or all are zero.
    """
    weight: NDArray[np.float64] = check_sample_weight(
        sample_weight, X, dtype=np.float64, ensure_non_negative=True
    )
    if not weight.any():
        raise ValueError(
            f"The sample weights of {owner} must not all be zero. Got {len(weight)} "
            "weights of zero instead."
        )
    return scale_below_one(weight)


def scale_below_one(weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale weights so that the largest is in [0.5, 1), and no sum overflows.

    The factor is a power of two, so that nothing is rounded.
    """
    _, exponent = np.frexp(weight.max())
    scaled: NDArray[np.float64] = np.ldexp(weight, -exponent)
    return scaled


def encode_labels(
    y: NDArray[Any], weight: NDArray[np.float64], owner: str
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Find the classes of the rows that have weight, and encode labels by them.

    The codes of rows of weight 0 have no meaning.
    """
    labels, label_codes = np.unique(y, return_inverse=True)
    present = np.unique(label_codes[weight > 0])
    if len(present) < 2:
        raise ValueError(
            f"The labels given to {owner} must be of at least two classes. Got one "
            f"class, {labels[present].tolist()[0]!r}, instead."
        )
    return labels[present], np.searchsorted(present, label_codes)


def compute_class_factors(
    class_weight: ClassWeight, classes: NDArray[Any], rows: Rows, owner: str
) -> NDArray[np.float64]:
    """Compute the factors (n_classes,) by which ``class_weight`` multiplies weights.

    Only their ratios matter. Raises a ValueError if a label is unknown, or a factor is
    negative or not finite, or all are zero.
    """
    if class_weight == "balanced":
        totals = rows.sum_by_class(len(classes))
        balanced: NDArray[np.float64] = totals.sum() / (len(classes) * totals)
        return balanced
    known = classes.tolist()
    unknown = [name for name in class_weight or () if name not in known]
    if unknown and not set(known) <= set(class_weight or ()):
        raise ValueError(
            f"The 'class_weight' parameter of {owner} must be weights of labels that y "
            f"holds, {known}. Got weights of {unknown} too, which y does not hold."
        )
    factors: NDArray[np.float64] = compute_class_weight(
        class_weight, classes=classes, y=classes
    )
    if not np.isfinite(factors).all() or (factors < 0).any() or not factors.any():
        raise ValueError(
            f"The 'class_weight' parameter of {owner} must contain finite weights that "
            f"are not negative and not all zero. Got {class_weight!r} instead."
        )
    return scale_below_one(factors)


def merge_equal_rows(
    X: NDArray[np.float32],
    codes: NDArray[np.intp],
    weight: NDArray[np.float64],
    groups: NDArray[np.intp] | None = None,
) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.intp]]:
    """Merge rows that have the same sample, class and group, and sum their weights.

    A row given twice is therefore exactly a row of weight 2, and the order of the rows
    has no effect. Rows of weight 0 are dropped.

    Returns three arrays (n,): positions of the rows that are kept, in an order that
    depends on their values only; their weights; and a number for each that is equal for
    equal samples, ascending from 0.
    """
    digests = _hash_rows(X, np.flatnonzero(weight))
    return merge_rows(digests, codes, weight, groups)


def merge_rows(
    digests: NDArray[np.void],
    codes: NDArray[np.intp],
    weight: NDArray[np.float64],
    groups: NDArray[np.intp] | None = None,
) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.intp]]:
    """Merge rows by the ``digests`` of the samples of those that have weight."""
    kept = np.flatnonzero(weight)
    _, value_ids = np.unique(digests, return_inverse=True)
    keys = np.stack(
        [
            value_ids,
            codes[kept],
            np.zeros_like(kept) if groups is None else groups[kept],
        ]
    )
    _, first, inverse = np.unique(keys, axis=1, return_index=True, return_inverse=True)
    summed = np.bincount(inverse.ravel(), weight[kept])
    return kept[first], summed.astype(np.float64), keys[0, first]


def _hash_rows(X: NDArray[np.float32], kept: NDArray[np.intp]) -> NDArray[np.void]:
    # Sorting 16 bytes a row is faster than sorting the rows.
    digests = np.empty(len(kept), dtype="V16")
    for start in range(0, len(kept), ROWS_AT_ONCE):
        chosen = kept[start : start + ROWS_AT_ONCE]
        # Adding 0 turns -0.0 into 0.0, the same number in other bytes.
        values = np.ascontiguousarray(X[chosen])
        values += 0
        for number, row in enumerate(values, start):
            digests[number] = np.void(blake2b(row, digest_size=16).digest())
    return digests
