"""An estimator → its scores on fixed folds, by scikit-learn's ``cross_validate``."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import sklearn
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, is_classifier
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import check_cv, cross_validate
from sklearn.utils.validation import _num_samples

from plug_sklearn.evaluation._groups import name_group_arguments
from plug_sklearn.evaluation._tables import TIMES, Scoring

Folds = list[tuple[NDArray[np.intp], NDArray[np.intp]]]


def split_folds(
    estimator: BaseEstimator,
    X: Any,  # noqa: ANN401 - whatever the estimator takes
    y: ArrayLike,
    cv: Any,  # noqa: ANN401 - as scikit-learn's functions take it
    groups: ArrayLike | None,
) -> Folds:
    """Split rows into folds once, for all that is to be compared on them.

    Parameters
    ----------
    estimator : estimator
        Whether it is a classifier decides whether folds are stratified.
    X, y, groups : array-like of shape (n_samples, ...)
        Rows.
    cv : int, splitter, iterable or None
        As in :func:`~sklearn.model_selection.cross_validate`.

    Returns
    -------
    list of (ndarray, ndarray)
        Positions of training and test rows.

    Raises
    ------
    ValueError
        If there are none.
    """
    splitter = check_cv(cv, y, classifier=is_classifier(estimator))
    folds = list(splitter.split(X, y, groups))
    if not folds:
        raise ValueError(
            f"The 'cv' parameter must give at least one fold. Got {cv!r} instead."
        )
    return folds


def collect_fit_params(
    estimator: BaseEstimator,
    params: Mapping[str, Any] | None,
    groups: ArrayLike | None,
) -> dict[str, Any]:
    """Add the groups to what ``fit`` is given, where the estimator takes them.

    Parameters
    ----------
    estimator : estimator
        Such as one that holds out validation rows by group, a search whose splitter
        uses groups, or a pipeline of such steps.
    params : dict or None
        What the user gives to ``fit``, which goes first.
    groups : array-like of shape (n_samples,) or None
        Groups.

    Returns
    -------
    dict
        Arguments of ``fit``.
    """
    given = dict(params or {})
    if groups is not None and not sklearn.get_config()["enable_metadata_routing"]:
        given.update(
            (name, groups)
            for name in name_group_arguments(estimator)
            if name not in given
        )
    return given


def score_folds(
    estimator: BaseEstimator,
    X: Any,  # noqa: ANN401 - whatever the estimator takes
    y: ArrayLike,
    folds: Folds,
    *,
    scoring: Scoring | None,
    fit_params: Mapping[str, Any],
    n_jobs: int | None = None,
    error_score: float | str = np.nan,
) -> tuple[pd.DataFrame, list[Any]]:
    """Fit an estimator on each fold, and score it.

    Parameters
    ----------
    estimator : estimator
        What to fit.
    X, y : array-like of shape (n_samples, ...)
        Rows.
    folds : list of (ndarray, ndarray)
        Positions of training and test rows.
    scoring : str, callable, sequence of str, dict or None
        As in :func:`~sklearn.model_selection.cross_validate`.
    fit_params : dict
        Arguments of ``fit``.
    n_jobs : int, default=None
        Workers of joblib.
    error_score : float or "raise", default=nan
        Score of a fit that fails, or "raise" for its error.

    Returns
    -------
    scores : DataFrame
        A row a fold: ``fold``; a column a score, by the name of the scorer, or
        ``score`` where it has none; ``fit_time`` and ``score_time`` in seconds.
    estimators : list
        The fitted estimators.
    """
    results = cross_validate(
        estimator,
        X,
        y,
        cv=folds,
        scoring=[scoring] if isinstance(scoring, str) else scoring,
        params=dict(fit_params) or None,
        n_jobs=n_jobs,
        return_estimator=True,
        error_score=error_score,
    )
    scores = {
        name.removeprefix("test_"): values
        for name, values in results.items()
        if name.startswith("test_")
    }
    times = {name: results[name] for name in TIMES}
    frame = pd.DataFrame({"fold": np.arange(len(folds)), **scores, **times})
    return frame, results["estimator"]


@contextmanager
def refuse_failed_fits(owner: str) -> Iterator[None]:
    """Make an error of fits that fail, for what needs an estimator of every fold.

    Parameters
    ----------
    owner : str
        Who fits, for messages.

    Raises
    ------
    ValueError
        If an estimator cannot be fitted on a fold.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", FitFailedWarning)
        try:
            yield
        except FitFailedWarning as warning:
            raise ValueError(
                f"The 'estimator' parameter of {owner} must fit on every fold. "
                f"{str(warning).strip()}"
            ) from None


def score_chance(
    estimator: BaseEstimator, y: ArrayLike, folds: Folds, scoring: Scoring | None
) -> pd.DataFrame:
    """Score what knows the training labels alone, and no feature.

    Parameters
    ----------
    estimator : estimator
        Whether it is a classifier decides what chance is: the shares of the classes, or
        the mean.
    y : array-like of shape (n_samples,)
        Targets.
    folds : list of (ndarray, ndarray)
        Positions of training and test rows.
    scoring : str, callable, sequence of str, dict or None
        As in :func:`~sklearn.model_selection.cross_validate`.

    Returns
    -------
    DataFrame
        A row a fold, a column a score; NaN where chance has none.
    """
    dummy = DummyClassifier() if is_classifier(estimator) else DummyRegressor()
    with warnings.catch_warnings():
        # Scores that are undefined for constant predictions have no chance level.
        warnings.simplefilter("ignore")
        scores, _ = score_folds(
            dummy,
            np.zeros((_num_samples(y), 1)),
            y,
            folds,
            scoring=scoring,
            fit_params={},
        )
    return scores.drop(columns=["fold", *TIMES])
