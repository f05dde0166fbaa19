"""A classifier → out-of-fold probabilities, and scores by fold and overall."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from plug_sklearn.evaluation._fold_scorer import FoldScorer
from plug_sklearn.evaluation._folds import collect_fit_params, split_folds
from plug_sklearn.evaluation._probabilities import require_probabilities
from plug_sklearn.evaluation._report_files import prepare_folder, write_report
from plug_sklearn.evaluation._report_fits import OWNER, score_each_fold
from plug_sklearn.evaluation._report_labels import read_labels
from plug_sklearn.evaluation._report_predictions import (
    name_columns,
    predict_out_of_fold,
)
from plug_sklearn.evaluation._report_scores import (
    measure_calibration,
    resolve_scoring,
    score_overall,
)
from plug_sklearn.evaluation._tables import Scoring
from plug_sklearn.evaluation._training_history import find_trained, training_history


@dataclass(frozen=True, eq=False)
class CrossValidationReport:
    """What cross-validation found out about a classifier.

    Parameters
    ----------
    predictions : DataFrame
        A row for each row of ``X`` in each fold that tests it, in the order and with
        the index of ``X``. Columns: ``fold``; ``group``, where there are groups;
        ``label``, the true one; ``predicted``, the most probable one; and for each
        class, such as ``cat``, its probability ``proba_cat``.
    scores : DataFrame
        A row a fold. Columns: ``fold``, a column for each score, ``fit_time`` and
        ``score_time`` in seconds, ``n_train`` and ``n_test``.
    overall : DataFrame
        A row a score. Columns: ``mean`` and ``std`` over the folds where it is defined,
        and ``pooled``, the score of all out-of-fold probabilities together: NaN where
        it takes decisions, or the rows of ``X``. A class that a fold did not train on
        has the probability 0 there, in all scores.
    calibration : dict of float
        ``expected_calibration_error`` and ``brier_score`` of all out-of-fold
        probabilities together.
    history : DataFrame or None
        Losses by fold and epoch, as :func:`training_history` gives them, where the
        estimators have any; without the folds whose fit failed.
    n_samples : int
        Rows of ``X``.
    classes : ndarray of shape (n_classes,)
        Labels, in the order of their columns.
    wall_time : float
        Seconds that fitting, scoring and predicting took.
    description : str
        The estimator as it prints.
    estimators : list
        The estimators fitted, one a fold; None for a fold whose fit failed.
    """

    predictions: pd.DataFrame
    scores: pd.DataFrame
    overall: pd.DataFrame
    calibration: dict[str, float]
    history: pd.DataFrame | None
    n_samples: int
    classes: NDArray[Any]
    wall_time: float
    description: str
    estimators: list[Any] = field(repr=False)


def cross_validation_report(
    estimator: BaseEstimator,
    X: Any,  # noqa: ANN401 - whatever the estimator takes
    y: ArrayLike,
    *,
    cv: Any = None,  # noqa: ANN401 - as scikit-learn's functions take it
    groups: ArrayLike | None = None,
    scoring: Scoring | None = None,
    out_dir: str | Path | None = None,
    overwrite: bool = False,
    params: Mapping[str, Any] | None = None,
    n_jobs: int | None = None,
) -> CrossValidationReport:
    """Cross-validate a classifier, and report all that comes out.

    Parameters
    ----------
    estimator : classifier
        Any that predicts probabilities.
    X : array-like of shape (n_samples, ...)
        What it takes; texts, if it begins with an embedder.
    y : array-like of shape (n_samples,)
        Labels.
    cv : int, splitter or iterable, default=None
        Folds, as in :func:`~sklearn.model_selection.cross_validate`, such as
        :class:`~sklearn.model_selection.LeaveOneGroupOut`.
    groups : array-like of shape (n_samples,), default=None
        Groups for ``cv``. They also reach the ``fit`` of an estimator that takes them,
        such as :class:`PlugMLPClassifier`, and the splitter of a search that uses them,
        such as ``GridSearchCV(cv=GroupKFold())``, alone or in a pipeline.
    scoring : str, callable, sequence of str or dict, default=None
        One score or several, as in :func:`~sklearn.model_selection.cross_validate`;
        None: accuracy, area under the ROC curve (each class against the rest, averaged,
        where there are more than two), and negated log loss and Brier score.
    out_dir : str or Path, default=None
        Folder, made if it is not there, for three files. ``predictions.csv`` and
        ``summary.json`` hold the report; the latter's keys are listed below.
        ``learning_curve.png`` shows losses and scores by epoch, a line a fold, where
        the estimators record them, and otherwise the first score against the number of
        training rows, for which a quarter and half of each fold are fitted too.
    overwrite : bool, default=False
        Whether files of an earlier run in ``out_dir`` may be replaced.
    params : dict, default=None
        More arguments of the estimator's ``fit``.
    n_jobs : int, default=None
        Workers of joblib, over folds.

    Returns
    -------
    CrossValidationReport
        Tables of probabilities and scores.

    Raises
    ------
    FileExistsError
        If ``out_dir`` holds a run, and ``overwrite`` is False. Nothing is fitted then.
    ImportError
        If ``out_dir`` is given and matplotlib is not installed.
    NotADirectoryError
        If ``out_dir`` is a file.
    ValueError
        If the estimator does not predict probabilities, or cannot be fitted on any
        fold; or if labels are missing, not those of classes, or not as many as rows.

    Warns
    -----
    UserWarning
        If the estimator cannot be fitted on a fold: its scores and probabilities are
        NaN there, and left out of means, pooled scores and calibration. If a score is
        undefined in a fold, as the area under the ROC curve is of one
        class, or a scorer fails: it is NaN there, and left out of means. If an
        estimator fails to predict: its probabilities are NaN, and left out of pooled
        scores and calibration. If a file cannot be written or a picture drawn.

    See Also
    --------
    compare_scores : Whether two reports on the same folds differ.
    sklearn.model_selection.cross_validate : Scores alone.

    Notes
    -----
    ``summary.json`` has the keys ``format_version`` (1); ``estimator``, as it prints;
    ``n_samples``, ``n_folds``, ``n_groups`` (null without groups) and ``classes``;
    ``scores``, for each of them ``mean``, ``std``, ``pooled`` and the list
    ``by_fold``; ``expected_calibration_error`` and ``brier_score``; ``wall_time`` and
    ``fit_time``, the sum over folds, in seconds; and ``versions`` of Python and of the
    packages used. What is undefined is null.

    Examples
    --------
    >>> import numpy as np
    >>> from plug_sklearn import cross_validation_report
    >>> from sklearn.linear_model import LogisticRegression
    >>> y = np.arange(100) % 2
    >>> X = np.random.default_rng(0).normal(size=(100, 4)) + y[:, None]
    >>> report = cross_validation_report(LogisticRegression(), X, y, scoring="roc_auc")
    >>> report.overall.round(2)
             mean   std  pooled
    roc_auc  0.87  0.12    0.88
    """
    start = perf_counter()
    require_probabilities(estimator, OWNER)
    truth, classes = read_labels(X, y, groups)
    scorer = FoldScorer(resolve_scoring(scoring, classes), classes, estimator)
    folds = split_folds(estimator, X, truth, cv, groups)
    fit_params = collect_fit_params(estimator, params, groups)
    # Last of all checks, since it may make a folder.
    folder = None if out_dir is None else prepare_folder(out_dir, overwrite)
    scores, estimators = score_each_fold(
        estimator, X, truth, folds, scorer, fit_params, n_jobs
    )
    predictions = predict_out_of_fold(
        estimators, X, truth, groups, folds, classes, n_jobs
    )
    labels = predictions["label"].to_numpy()
    probabilities = predictions[name_columns(classes)].to_numpy()
    report = CrossValidationReport(
        predictions=predictions,
        scores=scores,
        overall=score_overall(scores, probabilities, labels, scorer),
        calibration=measure_calibration(labels, probabilities, classes),
        history=training_history(estimators) if _have_history(estimators) else None,
        n_samples=len(truth),
        classes=classes,
        wall_time=perf_counter() - start,
        description=str(estimator),
        estimators=estimators,
    )
    if folder is not None:
        write_report(
            report, folder, estimator, X, truth, folds, scorer, fit_params, n_jobs
        )
    return report


def _have_history(estimators: Sequence[Any]) -> bool:
    fitted = [estimator for estimator in estimators if estimator is not None]
    return all(find_trained(estimator) is not None for estimator in fitted)
