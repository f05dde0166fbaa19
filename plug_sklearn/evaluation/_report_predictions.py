"""Fitted estimators → the probabilities of the rows that each was not fitted on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import _safe_indexing
from sklearn.utils.parallel import Parallel, delayed

from plug_sklearn._warnings import warn_user
from plug_sklearn.evaluation._fold_scorer import predict_all_classes
from plug_sklearn.evaluation._folds import Folds


def predict_out_of_fold(
    estimators: Sequence[Any],
    X: Any,  # noqa: ANN401 - whatever the estimators take
    y: NDArray[Any],
    groups: ArrayLike | None,
    folds: Folds,
    classes: NDArray[Any],
    n_jobs: int | None,
) -> pd.DataFrame:
    """Predict the test rows of each fold.

    Parameters
    ----------
    estimators : sequence of classifiers or None
        Fitted, one a fold; None where the fit failed.
    X, y, groups : array-like of shape (n_samples, ...)
        Rows, their labels, and their groups or None.
    folds : list of (ndarray, ndarray)
        Positions of training and test rows.
    classes : ndarray of shape (n_classes,)
        All labels.
    n_jobs : int or None
        Workers of joblib, over folds.

    Returns
    -------
    DataFrame
        A row for each row in each fold that tests it, in the order of ``X``, as
        :class:`CrossValidationReport` describes it. Probabilities are NaN in a fold
        whose estimator could not be fitted, or fails to predict.

    Warns
    -----
    UserWarning
        If an estimator fails to predict.
    """
    probabilities = np.vstack(
        Parallel(n_jobs=n_jobs)(
            delayed(_predict)(fitted, _safe_indexing(X, test), len(test), classes)
            for fitted, (_, test) in zip(estimators, folds, strict=True)
        )
    )
    rows = np.concatenate([test for _, test in folds])
    index = getattr(X, "index", None)
    index = index if isinstance(index, pd.Index) else pd.RangeIndex(len(y))
    table = pd.DataFrame(
        {"fold": np.repeat(range(len(folds)), [len(test) for _, test in folds])},
        index=index[rows],
    )
    if groups is not None:
        table["group"] = np.asarray(groups)[rows]
    table["label"] = y[rows]
    predicted = pd.Series(classes[probabilities.argmax(axis=1)], index=table.index)
    is_predicted = np.isfinite(probabilities).all(axis=1)
    if not is_predicted.all():
        # As objects, integers stay integers beside NaN.
        predicted = predicted.astype(object).where(is_predicted)
    table["predicted"] = predicted
    table[name_columns(classes)] = probabilities
    return table.iloc[np.argsort(rows, kind="stable")]


def name_columns(classes: NDArray[Any]) -> list[str]:
    """Name the columns of the classes' probabilities.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
        All labels.

    Returns
    -------
    list of str
        Such as ``"proba_cat"``.
    """
    return [f"proba_{label}" for label in classes]


def _predict(
    fitted: Any,  # noqa: ANN401 - a classifier of any kind, or None
    X: Any,  # noqa: ANN401 - whatever it takes
    n_rows: int,
    classes: NDArray[Any],
) -> NDArray[np.float64]:
    if fitted is not None:
        try:
            return predict_all_classes(fitted, X, classes)
        except Exception as error:
            warn_user(
                "In cross_validation_report, an estimator cannot predict the test rows "
                f"of its fold, whose probabilities are NaN: {error!r}"
            )
    return np.full((n_rows, len(classes)), np.nan)
