"""Cross-validation on fixed folds: splits, groups, and tables of scores by fold."""

import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from inspect import signature
from numbers import Integral
from textwrap import shorten
from typing import Any

import numpy as np
import pandas as pd
import sklearn
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, is_classifier
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.model_selection import (
    GroupKFold,
    StratifiedGroupKFold,
    StratifiedKFold,
    check_cv,
    cross_validate,
)
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import has_fit_parameter

from plug_sklearn._sklearn import is_search
from plug_sklearn.evaluation._inputs import describe

Fold = tuple[NDArray[np.intp], NDArray[np.intp]]
Folds = list[Fold]
Scoring = (
    str | Callable[..., Any] | Sequence[str] | Mapping[str, str | Callable[..., Any]]
)

#: Columns of a table of scores that hold times.
TIMES = ["fit_time", "score_time"]
#: Suffix of the column that holds the chance level of a score.
CHANCE = "_chance"


@dataclass(frozen=True)
class CrossValidation:
    """The targets of some rows, and the folds, scores and arguments of all fits."""

    y: Any
    folds: Folds
    groups: ArrayLike | None = None
    scoring: Any = None
    params: Mapping[str, Any] | None = None

    def score(
        self,
        estimator: BaseEstimator,
        X: Any,  # noqa: ANN401 - whatever the estimator takes
        *,
        n_jobs: int | None = None,
        error_score: float | str = np.nan,
    ) -> tuple[pd.DataFrame, list[Any]]:
        """Fit an estimator on each fold and score it, by ``cross_validate``.

        Returns a table with a row a fold, and the fitted estimators. The columns of the
        table are ``fold``; a column for each score, by the name of the scorer, or
        ``score`` where it has none; ``fit_time`` and ``score_time`` in seconds.
        """
        named = [self.scoring] if isinstance(self.scoring, str) else self.scoring
        with _shortening_errors(estimator, len(self.folds)):
            results = cross_validate(
                estimator,
                X,
                self.y,
                cv=self.folds,
                scoring=named,
                params=self.collect_params(estimator) or None,
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
        frame = pd.DataFrame({"fold": np.arange(len(self.folds)), **scores, **times})
        return frame, results["estimator"]

    def collect_params(self, estimator: BaseEstimator) -> dict[str, Any]:
        """Return the arguments of ``fit``, with groups if the estimator takes them."""
        return collect_fit_params(estimator, self.params, self.groups)

    def score_chance(self, estimator: BaseEstimator) -> pd.DataFrame:
        """Score a constant prediction: the shares of the classes, or the mean.

        Returns a table with a row a fold and a column a score. A score that is
        undefined for constant predictions is NaN.
        """
        dummy = DummyClassifier() if is_classifier(estimator) else DummyRegressor()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            alone = replace(self, params=None)
            scores, _ = alone.score(dummy, np.zeros((np.shape(self.y)[0], 1)))
        return scores.drop(columns=["fold", *TIMES])


def split_folds(
    estimator: BaseEstimator,
    X: Any,  # noqa: ANN401 - whatever the estimator takes
    y: ArrayLike,
    cv: Any,  # noqa: ANN401 - as scikit-learn's functions take it
    groups: ArrayLike | None,
    scoring: Any,  # noqa: ANN401 - as above, or the scorer of a report
    owner: str,
    params: Mapping[str, Any] | None = None,
) -> CrossValidation:
    """Split checked samples into positions for training and testing, once for all fits.

    ``X`` is for splitters that read it; None: only the number of samples counts.
    Folds of a classifier are stratified, as scikit-learn's functions make them. If
    there are groups, None or a number of folds keeps them together. Raises a
    ValueError, which names the parameter of ``owner``, for unsuitable folds.
    """
    splitter = check_cv(cv, y, classifier=is_classifier(estimator))
    if groups is not None and (cv is None or isinstance(cv, Integral)):
        splitter = _make_group_splitter(splitter, groups, owner)
    elif (
        groups is None
        and hasattr(splitter, "get_metadata_routing")
        and uses_groups(splitter)
    ):
        raise ValueError(
            f"The 'groups' parameter of {owner} must have a group for each sample if "
            f"'cv' is {splitter!r}. Got None instead."
        )
    rows = np.zeros((np.shape(y)[0], 1)) if X is None else X
    folds = list(splitter.split(rows, y, groups))
    if not folds:
        raise ValueError(
            f"The 'cv' parameter of {owner} must give at least one fold. "
            f"Got {cv!r} instead."
        )
    return CrossValidation(y, folds, groups, scoring, params)


def _make_group_splitter(splitter: Any, groups: ArrayLike, owner: str) -> Any:  # noqa: ANN401 - of scikit-learn
    """Make a splitter that keeps groups together, in place of one that does not."""
    n_splits, n_groups = splitter.get_n_splits(), len(set(np.asarray(groups).tolist()))
    if n_groups < n_splits:
        raise ValueError(
            f"The 'groups' parameter of {owner} must have {n_splits} groups or more "
            f"for {n_splits} folds. Got {n_groups}: give fewer folds as 'cv'."
        )
    if isinstance(splitter, StratifiedKFold):
        return StratifiedGroupKFold(n_splits)
    return GroupKFold(n_splits)


def collect_fit_params(
    estimator: BaseEstimator,
    params: Mapping[str, Any] | None,
    groups: ArrayLike | None,
) -> dict[str, Any]:
    """Add the groups to the arguments of ``fit``, where the estimator takes them.

    What the user gives in ``params`` is kept.
    """
    given = dict(params or {})
    if groups is not None and not sklearn.get_config()["enable_metadata_routing"]:
        given.update(
            (name, groups)
            for name in _name_group_arguments(estimator)
            if name not in given
        )
    return given


def _name_group_arguments(estimator: Any) -> list[str]:  # noqa: ANN401 - estimators of any kind
    """List the arguments of ``fit`` that take groups, without metadata routing.

    They are those of an estimator whose ``fit`` has the argument ``groups``; of a
    search, or an ``RFECV``, whose own splitter uses groups; and of pipelines of such
    steps. Steps after a resampler of imbalanced-learn get no groups, since the
    resampler changes the samples.
    """
    if isinstance(estimator, Pipeline):
        names = []
        for step, own in estimator.steps:
            names += [f"{step}__{name}" for name in _name_group_arguments(own)]
            if hasattr(own, "fit_resample"):
                break
        return names
    searches = is_search(estimator)
    # Whoever passes an RFECV has imported its module. Others need not import it.
    selection = sys.modules.get("sklearn.feature_selection")
    if searches or (selection and isinstance(estimator, selection.RFECV)):
        own = ["groups"] if uses_groups(estimator.cv) else []
        if not searches:
            return own
        # A search passes "groups" to its splitter, and other names to its estimator.
        inner = _name_group_arguments(estimator.estimator)
        return own + [name for name in inner if name != "groups"]
    takes_groups = hasattr(estimator, "fit") and has_fit_parameter(estimator, "groups")
    return ["groups"] if takes_groups else []


def uses_groups(cv: Any) -> bool:  # noqa: ANN401 - as scikit-learn's functions take it
    """Return whether a splitter uses groups."""
    if hasattr(cv, "get_metadata_routing"):
        return cv.get_metadata_routing().split.requests.get("groups") is True
    return hasattr(cv, "split") and "groups" in signature(cv.split).parameters


@contextmanager
def _shortening_errors(estimator: BaseEstimator, n_folds: int) -> Iterator[None]:
    """Replace the error of ``cross_validate`` that repeats each fold's traceback."""
    try:
        yield
    except ValueError as error:
        failure = find_failure(str(error))
        if failure is None:
            raise
        short = (
            f"{type(estimator).__name__} could not be fitted: all {n_folds} fits "
            f"failed, the first with {failure} Fit it on X and y to see where."
        )
    else:
        return
    raise ValueError(short)


def find_failure(told: str) -> str | None:
    """Find the first error in what scikit-learn tells of fits that failed.

    Its type and the first line of its message; None in other texts.
    """
    if "details about the failures" not in told:
        return None
    # The last of the errors of a fit is the one that ended it.
    first = re.split(r"^-{20,}$", told, flags=re.MULTILINE)[1]
    _, _, ending = first.rpartition("Traceback (most recent call last)")
    found = re.search(r"^[\w.]+: .+$", ending, flags=re.MULTILINE)
    if found is None:
        return None
    return shorten_error(found.group())


def shorten_error(told: str) -> str:
    """Return the first line of an error message as a sentence of at most 300 letters.

    Arrays and advice for other estimators stand below it.
    """
    first, *_ = told.strip().splitlines() or [""]
    line = shorten(first, 300, placeholder=" ...").rstrip(":.")
    return f"{line}."


def list_scores(table: pd.DataFrame) -> list[str]:
    """List the columns of scores, without those of chance levels.

    They are the columns between ``fold`` and ``fit_time``.
    """
    columns = list(table.columns)
    if not {"fold", "fit_time"} <= set(columns):
        return []
    between = columns[columns.index("fold") + 1 : columns.index("fit_time")]
    return [name for name in between if not name.endswith(CHANCE)]


def check_score(scoring: Scoring | None, score: str | None, owner: str) -> None:
    """Raise a ValueError if ``scoring`` will not give the score to draw.

    The scores that a callable will return are unknown, so that any is accepted.
    """
    if callable(scoring):
        return
    scoring = ["score"] if scoring is None else scoring
    scores = [scoring] if isinstance(scoring, str) else list(scoring)
    if not scores or score not in (None, *scores):
        raise ValueError(
            f"The 'score' parameter of {owner} must be one of {scores}. Got {score!r} "
            "instead."
        )


def check_table(
    table: Any,  # noqa: ANN401 - anything else is refused
    columns: Sequence[str],
    name: str,
    owner: str,
    maker: str,
) -> None:
    """Raise a ValueError unless a table is one that ``maker`` returns.

    ``name`` is that of the parameter of ``owner`` which holds the table.
    """
    is_table = isinstance(table, pd.DataFrame)
    if not is_table or not set(columns) <= set(table.columns):
        found = f"the columns {list(table.columns)}" if is_table else describe(table)
        raise ValueError(
            f"The {name!r} parameter of {owner} must be a DataFrame with the columns "
            f"{list(columns)}, as {maker} returns it. Got {found} instead."
        )


def find_score(table: pd.DataFrame, score: str | None, name: str, owner: str) -> str:
    """Return the name of the score to draw: ``score``, or the first of the table."""
    scores = list_scores(table)
    check_score(scores, score, owner)
    found = scores[0] if score is None else score
    if table[found].isna().all():
        raise ValueError(
            f"The {name!r} parameter of {owner} must hold scores that are numbers. All "
            f"values of {found!r} are missing."
        )
    return found
