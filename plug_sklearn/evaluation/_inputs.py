"""Check what functions are given: estimators, rows, labels, groups, probabilities."""

from reprlib import repr as shorten
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, is_classifier
from sklearn.pipeline import Pipeline
from sklearn.utils import check_array, check_consistent_length, column_or_1d

#: Largest accepted error of the sum of a row's probabilities: bfloat16 rounds to 0.4%.
TOLERANCE = 0.01


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


def split_pipeline(
    pipeline: Any,  # noqa: ANN401 - anything else is refused
    owner: str,
    parameter: str = "pipeline",
) -> tuple[Any, BaseEstimator]:
    """Split a pipeline into its embedder, or None, and the steps after it."""
    check_estimator(pipeline, owner, parameter)
    if not isinstance(pipeline, Pipeline) or not is_embedder(pipeline.steps[0][1]):
        return None, pipeline
    if len(pipeline.steps) < 2:
        raise ValueError(
            f"The {parameter!r} parameter of {owner} must have a classifier after its "
            "embedder. Got the embedder alone."
        )
    return pipeline.steps[0][1], pipeline[1:]


def is_embedder(estimator: object) -> bool:
    """Return whether an estimator is an :class:`HFEmbeddingTransformer`."""
    # Other estimators need no torch, which takes seconds to import.
    names = {kind.__name__ for kind in type(estimator).__mro__}
    if "HFEmbeddingTransformer" not in names:
        return False
    from plug_sklearn.embedding import HFEmbeddingTransformer

    return isinstance(estimator, HFEmbeddingTransformer)


def check_probabilistic(
    estimator: Any,  # noqa: ANN401 - anything else is refused
    owner: str,
    *,
    is_fitted: bool,
) -> None:
    """Raise a ValueError if an estimator does not predict probabilities.

    An estimator that is not fitted yet passes if it may predict them once it is.
    """
    if hasattr(estimator, "predict_proba"):
        return
    is_known = isinstance(estimator, BaseEstimator) and is_classifier(estimator)
    if is_known and not is_fitted and _may_predict_probabilities(estimator):
        return
    hint = ""
    if is_known:
        hint = (
            ", which sklearn.calibration.CalibratedClassifierCV can calibrate to do so"
        )
    raise ValueError(
        f"The 'estimator' parameter of {owner} must predict probabilities. Got "
        f"{type(estimator).__name__} instead{hint}."
    )


def _may_predict_probabilities(classifier: BaseEstimator) -> bool:
    """Return whether a classifier may predict probabilities once it is fitted.

    A stack of classifiers may, since it makes its last one in ``fit``.
    """
    if isinstance(classifier, Pipeline):
        classifier = classifier.steps[-1][1]
    kind = type(classifier)
    if not hasattr(kind, "predict_proba"):
        return False
    # For scikit-learn's own classes the parameters decide, unless one is an estimator.
    has_inner = {"estimator", "estimators", "steps"} & set(classifier.get_params(False))
    return bool(has_inner) or not kind.__module__.startswith("sklearn.")


def check_rows(
    X: Any,  # noqa: ANN401 - whatever an estimator takes
    y: Any,  # noqa: ANN401 - anything else is refused
    groups: Any,  # noqa: ANN401 - anything else is refused
    owner: str,
) -> None:
    """Raise an error unless X, y and groups are of the same samples.

    Labels may have two axes, for regressors of several targets, and groups must have
    one. Missing labels and groups are refused, and so are activations that are not
    finite. Features may be missing, because a pipeline may impute them.
    """
    for name, value in (("X", X), ("y", y)):
        if _count_rows(value) is None:
            raise TypeError(
                f"The {name!r} parameter of {owner} must be array-like, with an item "
                f"for each sample. Got {describe(value)} instead."
            )
    if isinstance(X, np.ndarray) and X.ndim == 1 and X.dtype.kind in "biuf":
        raise ValueError(
            f"The 'X' parameter of {owner} must be texts, or an array of two axes or "
            f"more. Got {describe(X)} instead."
        )
    if len(getattr(y, "shape", (0,))) > 2:
        raise ValueError(
            f"The 'y' parameter of {owner} must have a label for each sample. "
            f"Got {describe(y)} instead."
        )
    n_rows = _count_rows(X)
    if _count_rows(y) != n_rows:
        raise ValueError(
            f"The 'y' parameter of {owner} must have a label for each of the {n_rows} "
            f"samples of X. Got {_count_rows(y)} instead."
        )
    _refuse_token_labels(y, owner)
    if getattr(y, "shape", (0,))[1:] in ((), (1,)):
        _refuse_missing("y", y, owner)
    check_groups(groups, n_rows, owner)
    if isinstance(X, np.ndarray) and X.ndim > 2 and X.dtype.kind == "f":
        _refuse_non_finite(np.asarray(X), owner)


def check_groups(groups: ArrayLike | None, n_rows: int | None, owner: str) -> None:
    """Raise a ValueError unless groups, if any, have a value for each sample."""
    if groups is None:
        return
    expected = f"The 'groups' parameter of {owner} must have a group for each sample"
    n_found = _count_rows(groups)
    if n_found is None or len(getattr(groups, "shape", (0,))) > 1:
        raise ValueError(f"{expected}. Got {describe(groups)} instead.")
    if n_found != n_rows:
        raise ValueError(
            f"{expected} of X. Got {n_found} for {n_rows} samples instead."
        )
    _refuse_missing("groups", groups, owner)


def _refuse_missing(name: str, given: ArrayLike, owner: str) -> None:
    """Raise a ValueError if labels or groups are None or NaN."""
    missing = np.flatnonzero(pd.isna(np.asarray(given, dtype=object))).tolist()
    if missing:
        found = f"{len(missing)} missing, at positions {missing[:5]}"
        raise ValueError(
            f"The {name!r} parameter of {owner} must have a value for each sample. "
            f"Got {found}{'' if len(missing) <= 5 else ' and others'}."
        )


def _refuse_token_labels(y: Any, owner: str) -> None:  # noqa: ANN401 - checked here
    """Raise a ValueError if the labels are sequences of several lengths.

    Sequences of one length may be the targets of a regressor.
    """
    is_array = isinstance(y, np.ndarray | pd.Series)
    own = [label for label in y if isinstance(label, list | tuple | np.ndarray)]
    if own and ((is_array and y.ndim == 1) or len({len(label) for label in own}) > 1):
        raise ValueError(
            f"The 'y' parameter of {owner} must have one label for each sample. "
            "Got labels of tokens instead, which only cross_val_score can score."
        )


def _refuse_non_finite(X: NDArray[Any], owner: str) -> None:
    """Raise a ValueError if activations contain NaN or infinity."""
    # A sum takes no memory, and is not finite if any activation is not.
    if np.isfinite(X.sum(dtype=np.float64)):
        return
    rows = np.flatnonzero(~np.isfinite(X).all(axis=tuple(range(1, X.ndim)))).tolist()
    raise ValueError(
        f"The 'X' parameter of {owner} must contain finite activations. Got NaN or "
        f"infinity in {len(rows)} of {len(X)} samples, such as {rows[:5]}."
    )


def _count_rows(value: Any) -> int | None:  # noqa: ANN401 - values of any kind
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple):
        return int(shape[0]) if shape else None
    # A pipeline has a length, the number of its steps.
    is_other = isinstance(value, str | bytes) or hasattr(value, "fit")
    return None if is_other or not hasattr(value, "__len__") else len(value)


class Predictions(NamedTuple):
    """True classes and predicted probabilities.

    ``codes`` of shape (n_samples,) are true classes, as columns of ``probabilities`` of
    shape (n_samples, n_classes), which keep the precision given. ``labels`` name the
    columns. Of two classes, the positive one is the second.
    """

    codes: NDArray[np.intp]
    probabilities: NDArray[np.floating]
    labels: NDArray[Any]


def read_predictions(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    *,
    labels: ArrayLike | None,
    pos_label: object,
    owner: str,
) -> Predictions:
    """Check labels and probabilities, given as the public functions take them."""
    truth = column_or_1d(y_true)
    _refuse_fractions(truth, owner)
    given = _read_matrix(y_proba, owner)
    check_consistent_length(truth, given)
    classes = _read_labels(truth, labels, given.shape[1], pos_label, owner)
    order = np.arange(len(classes))
    if pos_label is not None and pos_label == classes[0]:
        order = order[::-1]
        # A single column holds the positive class, whichever that is.
        given = given if np.ndim(y_proba) == 1 else given[:, ::-1]
    ordered = classes[order]
    is_true = truth[:, None] == ordered
    if not is_true.any(axis=1).all():
        unknown = np.unique(truth[~is_true.any(axis=1)]).tolist()
        raise ValueError(
            f"The 'labels' parameter of {owner} must contain every label of y_true. "
            f"Got {classes.tolist()}, without {unknown}."
        )
    return Predictions(is_true.argmax(axis=1), given, ordered)


def _read_matrix(y_proba: ArrayLike, owner: str) -> NDArray[np.floating]:
    """Return probabilities as a matrix of two columns or more."""
    shape = np.shape(y_proba)
    if len(shape) not in (1, 2) or shape[1:] in ((0,), (1,)):
        raise ValueError(
            f"The 'y_proba' parameter of {owner} must be of shape (n_samples,), or "
            f"(n_samples, n_classes) with two classes or more. Got shape {shape} "
            "instead."
        )
    given = check_array(
        y_proba,
        ensure_2d=False,
        dtype=(np.float64, np.float32, np.float16),
        input_name="y_proba",
    )
    if not ((given >= 0) & (given <= 1)).all():
        raise ValueError(
            f"The 'y_proba' parameter of {owner} must be probabilities in [0, 1]. Got "
            f"values from {given.min()} to {given.max()} instead."
        )
    matrix = np.column_stack([1 - given, given]) if given.ndim == 1 else given
    sums = matrix.sum(axis=1, dtype=np.float64)
    if abs(sums - 1).max() > TOLERANCE:
        raise ValueError(
            f"The 'y_proba' parameter of {owner} must have rows that add up to 1. Got "
            f"{sums[abs(sums - 1).argmax()]} instead."
        )
    return matrix


def _refuse_fractions(truth: NDArray[Any], owner: str) -> None:
    """Refuse probabilities and NaN among labels, which may be whole numbers."""
    if truth.dtype.kind != "f":
        return
    others = truth[truth != np.floor(truth)]
    if len(others):
        raise ValueError(
            f"The 'y_true' parameter of {owner} must be class labels, which are not "
            f"fractions or NaN. Got {others[0]}."
        )


def _read_labels(
    truth: NDArray[Any],
    labels: ArrayLike | None,
    n_classes: int,
    pos_label: object,
    owner: str,
) -> NDArray[Any]:
    classes = np.unique(truth) if labels is None else np.asarray(labels)
    if n_classes == 2 and labels is None and len(classes) < 2:
        # If y_true holds one class alone, usual labels tell what the other one is.
        for pair in ((0, 1), (-1, 1)):
            if set(classes.tolist()) <= set(pair):
                classes = np.array(pair)
                break
    if len(classes) != n_classes or len(set(classes.tolist())) != n_classes:
        raise ValueError(
            f"The 'labels' parameter of {owner} must name the {n_classes} classes that "
            f"probabilities are given for. Got {classes.tolist()} instead."
        )
    if pos_label is not None and (n_classes != 2 or pos_label not in classes.tolist()):
        raise ValueError(
            f"The 'pos_label' parameter of {owner} must be one of two labels. Got "
            f"{pos_label!r} of {classes.tolist()} instead."
        )
    return classes
