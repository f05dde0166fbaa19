"""Labels and probabilities, as users give them → class codes and a matrix."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, is_classifier
from sklearn.pipeline import Pipeline
from sklearn.utils import check_array, check_consistent_length, column_or_1d

#: How far from 1 the probabilities of a row may add up to: bfloat16 rounds to 0.4%.
TOLERANCE = 0.01


@dataclass(frozen=True)
class Predictions:
    """What was predicted, and what was true.

    Attributes
    ----------
    codes : ndarray of shape (n_samples,), int
        True classes, as columns of ``probabilities``.
    probabilities : ndarray of shape (n_samples, n_classes), floating
        Of as many bits as given. The positive one of two classes comes last.
    labels : ndarray of shape (n_classes,)
        The class of each column.
    """

    codes: NDArray[np.intp]
    probabilities: NDArray[np.floating]
    labels: NDArray[Any]

    @property
    def is_binary(self) -> bool:
        """Whether there are two classes."""
        return len(self.labels) == 2


def read_predictions(
    y_true: ArrayLike,
    y_proba: ArrayLike,
    *,
    labels: ArrayLike | None,
    pos_label: object,
    owner: str,
) -> Predictions:
    """Read labels and probabilities.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels.
    y_proba : array-like of shape (n_samples,) or (n_samples, n_classes)
        Probabilities of the positive class, or of each class.
    labels : array-like of shape (n_classes,) or None
        Labels in the order of the columns; None: those of ``y_true``, sorted.
    pos_label : object
        The positive one of two labels; None: the second.
    owner : str
        Name of the function, for messages.

    Returns
    -------
    Predictions
        In one form for both.

    Raises
    ------
    ValueError
        If probabilities are no probabilities, or labels are not those of the columns.
    """
    truth = column_or_1d(y_true)
    _refuse_fractions(truth, owner)
    given = _read_matrix(y_proba, owner)
    check_consistent_length(truth, given)
    classes = _read_labels(truth, labels, given.shape[1], pos_label, owner)
    order = np.arange(len(classes))
    if pos_label is not None and pos_label == classes[0]:
        order = order[::-1]
        # One column is of the positive class, whichever that is.
        given = given if np.ndim(y_proba) == 1 else given[:, ::-1]
    ordered = classes[order]
    is_true = truth[:, None] == ordered
    if not is_true.any(axis=1).all():
        strangers = np.unique(truth[~is_true.any(axis=1)]).tolist()
        raise ValueError(
            f"The 'labels' parameter of {owner} must hold every label of y_true. "
            f"{strangers} are missing from {classes.tolist()}."
        )
    return Predictions(is_true.argmax(axis=1), given, ordered)


def _read_matrix(y_proba: ArrayLike, owner: str) -> NDArray[np.floating]:
    """Read probabilities as a matrix of two columns or more."""
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
    """Labels may be numbers, but not probabilities, nor NaN."""
    if truth.dtype.kind != "f":
        return
    others = truth[truth != np.floor(truth)]
    if len(others):
        raise ValueError(
            f"The 'y_true' parameter of {owner} must be labels of classes. Got "
            f"{others[0]} among them."
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
        # One class alone is there; the other one's name can be known all the same.
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


def require_probabilities(
    estimator: Any,  # noqa: ANN401 - what is no classifier is refused
    owner: str,
) -> None:
    """Make sure that an estimator predicts probabilities, or may once it is fitted.

    Parameters
    ----------
    estimator : classifier
        Any.
    owner : str
        Name of the function, for messages.

    Raises
    ------
    ValueError
        If it does not.
    """
    if not _may_predict_probabilities(estimator):
        refuse_without_probabilities(estimator, owner)


def refuse_without_probabilities(
    estimator: Any,  # noqa: ANN401 - what is no classifier is refused
    owner: str,
) -> None:
    """Refuse an estimator that does not predict probabilities as it is.

    Parameters
    ----------
    estimator : classifier
        Any.
    owner : str
        Name of the function, for messages.

    Raises
    ------
    ValueError
        If it does not.
    """
    if hasattr(estimator, "predict_proba"):
        return
    can_be_taught = isinstance(estimator, BaseEstimator) and is_classifier(estimator)
    teacher = "sklearn.calibration.CalibratedClassifierCV"
    hint = f", which {teacher} can teach to" if can_be_taught else ""
    raise ValueError(
        f"The 'estimator' parameter of {owner} must predict probabilities. Got "
        f"{type(estimator).__name__} instead{hint}."
    )


def _may_predict_probabilities(estimator: Any) -> bool:  # noqa: ANN401 - as above
    """Tell whether a classifier predicts probabilities, or may once it is fitted.

    A stack of classifiers may, since it makes its last one in ``fit``.
    """
    if isinstance(estimator, Pipeline):
        estimator = estimator.steps[-1][1]
    kind = type(estimator)
    if hasattr(estimator, "predict_proba"):
        return True
    if not (isinstance(estimator, BaseEstimator) and is_classifier(estimator)):
        return False
    if not hasattr(kind, "predict_proba"):
        return False
    # For scikit-learn's own classes the parameters decide, unless one is an estimator.
    held = {"estimator", "estimators", "steps"} & set(kind._get_param_names())
    return bool(held) or not kind.__module__.startswith("sklearn.")
