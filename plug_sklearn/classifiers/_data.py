"""Check what users pass to ``fit`` and ``predict``, and hold out validation rows."""

from contextlib import suppress
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d, validate_data

from plug_sklearn._sklearn import check_sample_weight, explaining_texts
from plug_sklearn.classifiers._batches import Rows
from plug_sklearn.classifiers._splitting import (
    choose_validation_rows,
    merge_equal_rows,
)

ClassWeight = dict[Any, float] | str | None


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
    numbers = number_groups(groups, len(samples), owner)
    index, weight, sample_of_row, numbers = merge_equal_rows(
        samples, codes, weight, numbers
    )
    return Rows(samples, codes[index], weight, numbers, index, sample_of_row)


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
            f"{len(missing)} of {len(labels)} samples, at positions [{listed}{more}]."
        )
    if len({isinstance(label, str) for label in labels}) > 1:
        kinds = sorted({type(label).__name__ for label in labels})
        raise ValueError(
            f"The labels given to {owner} must be all strings or all numbers. "
            f"Got {kinds} instead."
        )


def number_groups(
    groups: ArrayLike | None, n_samples: int, owner: str
) -> NDArray[np.intp] | None:
    """Return the number of each sample's group, counted from 0; None if not given."""
    if groups is None:
        return None
    given = np.asarray(groups)
    if given.shape in ((n_samples,), (n_samples, 1)):
        missing = np.flatnonzero([one is None or one != one for one in given.flat])
        if len(missing):
            raise ValueError(
                f"The 'groups' given to {owner} must not be missing. Got "
                f"{len(missing)} of {n_samples} missing, the first at position "
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


def refuse_tokens(X: Any, owner: str) -> None:  # noqa: ANN401 - as users give it
    """Refuse activations of tokens: an array or list of arrays, one for each text."""
    is_array = isinstance(X, np.ndarray) and X.dtype == object and X.ndim == 1
    if not is_array and not isinstance(X, list | tuple):
        return
    shapes = {np.shape(item) for item in X if isinstance(item, np.ndarray)}
    # A list of arrays of one shape is as good as one array.
    if any(len(shape) > 1 for shape in shapes) and (is_array or len(shapes) > 1):
        raise ValueError(
            f"X given to {owner} must be one array of numbers. Got an array for each "
            "text instead: PlugTokenClassifier reads the activations of all tokens; "
            "pooling='mean' or 'last' in HFEmbeddingTransformer pools them."
        )


def read_geometry(
    input_shape: tuple[int, ...],
    n_layers: int | None,
    n_parts: int | None,
    owner: str,
) -> tuple[int, int, int]:
    """Read numbers of layers, parts and hidden units.

    ``n_layers`` and ``n_parts`` are the parameters of the classifier ``owner``, which
    divide samples of one axis.
    """
    if len(input_shape) == 1:
        (n_features,), shape = input_shape, (n_layers or 1, n_parts or 1)
        if n_features % prod(shape):
            raise ValueError(
                f"The 'n_layers' and 'n_parts' parameters of {owner} must divide the "
                f"{n_features} features of X. Got {shape[0]} and {shape[1]} instead."
            )
        return *shape, n_features // prod(shape)
    if len(input_shape) > 3:
        raise ValueError(
            f"X given to {owner} must be (n, layers, parts, hidden), "
            "(n, layers, hidden) or (n, features). Got samples of shape "
            f"{input_shape} instead."
        )
    found_layers, *between, hidden_size = input_shape
    found_parts = between[0] if between else 1
    for name, wanted, found in (
        ("n_layers", n_layers, found_layers),
        ("n_parts", n_parts, found_parts),
    ):
        if wanted not in (None, found):
            raise ValueError(
                f"The {name!r} parameter of {owner} must be None or {found}, as "
                f"in X. Got {wanted} instead."
            )
    return found_layers, found_parts, hidden_size


def holds_sequences(y: Any) -> bool:  # noqa: ANN401 - validated by its callers
    """Return whether some of the labels are sequences."""
    is_listed = isinstance(y, list | tuple) or str(getattr(y, "dtype", "")) == "object"
    return is_listed and any(isinstance(own, list | tuple | np.ndarray) for own in y)


def refuse_token_labels(y: Any, owner: str) -> None:  # noqa: ANN401 - validated later
    """Refuse several labels for a sample; a column of labels is read later."""
    if holds_sequences(y) and any(np.size(own) != 1 for own in y):
        raise ValueError(
            f"y given to {owner} must hold one label for each sample. Got sequences of "
            "labels instead: PlugTokenClassifier takes labels of tokens."
        )
