"""Check labels, predicted probabilities, and classifiers that predict them."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, is_classifier
from sklearn.pipeline import Pipeline
from sklearn.utils import check_array, check_consistent_length, column_or_1d

#: Largest accepted error of the sum of a row's probabilities: bfloat16 rounds to 0.4%.
TOLERANCE = 0.01


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
    """Check labels and probabilities, given as the public functions take them.

    Raises a ValueError, which names the function ``owner``, if they are no labels or
    probabilities, or if the labels do not match the columns.
    """
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
