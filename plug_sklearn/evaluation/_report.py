"""Cross-validation of a classifier, with all its results in one report."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import column_or_1d

from plug_sklearn.evaluation._controls import COLUMNS as CONTROL_COLUMNS
from plug_sklearn.evaluation._folds import (
    CrossValidation,
    Scoring,
    check_table,
    split_folds,
)
from plug_sklearn.evaluation._inputs import (
    check_estimator,
    check_probabilistic,
    check_rows,
)
from plug_sklearn.evaluation._report_files import prepare_folder, write_report
from plug_sklearn.evaluation._report_fits import (
    OWNER,
    FoldFit,
    fit_folds,
    tabulate_predictions,
    tabulate_scores,
)
from plug_sklearn.evaluation._report_scores import (
    FoldScorer,
    measure_calibration,
    resolve_scoring,
    score_overall,
)
from plug_sklearn.evaluation._training_curves import find_trained, training_history


@dataclass(frozen=True, eq=False)
class CrossValidationReport:
    """Results of the cross-validation of a classifier.

    Parameters
    ----------
    predictions : DataFrame
        One row for each sample in each fold that tests it, in the order and with the
        index of ``X``. Columns: ``fold``; ``group``, if there are groups; ``label``,
        the true label; ``predicted``, the most probable label; and for each class, such
        as ``cat``, its probability ``proba_cat``.
    scores : DataFrame
        One row for each fold. Columns: ``fold``, a column for each score, ``fit_time``
        and ``score_time`` in seconds, ``n_train`` and ``n_test``.
    overall : DataFrame
        One row for each score. Columns: ``mean`` and ``std`` over the folds where the
        score is defined, and ``pooled``, the score of all out-of-fold probabilities
        together, which is NaN for a scorer that needs decisions or ``X`` itself. In all
        scores, a class without training samples in a fold has probability 0 there.
    calibration : dict of float
        ``expected_calibration_error`` and ``brier_score`` of all out-of-fold
        probabilities together.
    history : DataFrame or None
        Losses by fold and epoch, as :func:`training_history` returns them, without
        failed fits; None for estimators that are not trained by epochs.
    n_samples : int
        Number of samples in ``X``.
    classes : ndarray of shape (n_classes,)
        Labels, in the order of their columns.
    wall_time : float
        Seconds for fitting, scoring and predicting.
    description : str
        The printed form of the estimator.
    estimators : list
        The fitted estimator of each fold; None for a fold whose fit failed.
    controls : DataFrame or None
        The scores of the controls, as :func:`probe_controls` returns them, if they were
        given.
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
    controls: pd.DataFrame | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        title = (
            f"CrossValidationReport of {self.n_samples} samples, {len(self.classes)} "
            f"classes and {len(self.scores)} folds, in {self.wall_time:.1f} s"
        )
        calibration = ", ".join(
            f"{name} {value:.3f}" for name, value in self.calibration.items()
        )
        return f"{title}\n{self.overall.round(3)}\n{calibration}"


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
    controls: pd.DataFrame | None = None,
    n_jobs: int | None = None,
    verbose: bool = False,
) -> CrossValidationReport:
    """Cross-validate a classifier, and collect scores, probabilities and histories.

    Parameters
    ----------
    estimator : classifier
        Any classifier that predicts probabilities, alone or in a pipeline.
    X : array-like of shape (n_samples, ...)
        Samples, as the classifier takes them: texts for a pipeline with an embedder.
    y : array-like of shape (n_samples,)
        Labels.
    cv : int, splitter or iterable, default=None
        Folds, as in :func:`~sklearn.model_selection.cross_validate`, such as
        :class:`~sklearn.model_selection.LeaveOneGroupOut`.
        With ``groups``, None or a number of folds keeps groups together, by
        ``StratifiedGroupKFold`` for classes and ``GroupKFold`` otherwise.
    groups : array-like of shape (n_samples,), default=None
        Groups for ``cv``. They also reach the ``fit`` of an estimator that takes them,
        such as :class:`PlugMLPClassifier`, and the splitter of a search that uses them,
        such as ``GridSearchCV(cv=GroupKFold())``, alone or in a pipeline.
    scoring : str, callable, sequence of str or dict, default=None
        One score or several, as in :func:`~sklearn.model_selection.cross_validate`;
        None: accuracy, ROC-AUC (one-vs-rest for more than two classes), the negative
        log loss and the negative Brier score.
    out_dir : str or Path, default=None
        Folder for four files, which is created if needed. ``report.html`` shows
        everything on one page: scores with their intervals, calibration, controls,
        pictures, settings and versions. ``predictions.csv`` and ``summary.json`` hold
        the report; the keys of the latter are listed below. ``learning_curve.png``
        shows losses and scores by epoch, with a line for each fold. For estimators
        without epochs, it shows the first score against the number of training samples;
        for this, they are also fitted on a quarter and on half of the training samples
        of each fold.
    overwrite : bool, default=False
        Whether to replace the files of an earlier run in ``out_dir``.
    params : dict, default=None
        Further arguments of the estimator's ``fit``.
    controls : DataFrame, default=None
        What :func:`probe_controls` returned for the estimator, to be shown with the
        results. Pass the same ``cv``, ``groups`` and ``scoring`` to both functions.
    n_jobs : int, default=None
        Number of joblib workers, over folds.
    verbose : bool, default=False
        Whether to show a progress bar, in a terminal or notebook.

    Returns
    -------
    CrossValidationReport
        Tables of scores and out-of-fold probabilities.

    Raises
    ------
    FileExistsError
        If ``out_dir`` holds the files of an earlier run, and ``overwrite`` is False.
        Nothing is fitted then.
    ImportError
        If ``out_dir`` is given and matplotlib is not installed.
    NotADirectoryError
        If ``out_dir`` is a file.
    ValueError
        If the estimator does not predict probabilities, or cannot be fitted on any
        fold; or if labels are missing, continuous, of one class, or not as many as
        samples.

    Warns
    -----
    UserWarning
        If a fit fails: the scores and probabilities of its fold are NaN, and are left
        out of means, pooled scores and calibration. If a score is undefined in a fold,
        such as the ROC-AUC of one class, or a scorer fails: the score is NaN there, and
        left out of means. If a prediction fails: the probabilities of its fold are NaN,
        and are left out of pooled scores and calibration. If a file cannot be written
        or a picture drawn.

    See Also
    --------
    compare_scores : Tests whether the scores of two reports on the same folds differ.
    sklearn.model_selection.cross_validate : Computes scores alone.

    Notes
    -----
    ``summary.json`` has the keys ``format_version`` (1); ``estimator``, its printed
    form; ``n_samples``, ``n_folds``, ``n_groups`` (null without groups) and
    ``classes``; ``scores``, each with ``mean``, ``std``, ``pooled`` and the list
    ``by_fold``; ``expected_calibration_error`` and ``brier_score``; ``wall_time``,
    and ``fit_time`` summed over folds, both in seconds; and ``versions`` of Python and
    of the packages used. Undefined values are null.

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
    _check_parameters(estimator, out_dir, params, controls)
    truth, classes = _read_labels(X, y, groups)
    scorer = FoldScorer(resolve_scoring(scoring, classes), classes, estimator)
    validation = split_folds(estimator, X, truth, cv, groups, scorer, OWNER, params)
    # The last of all checks, since it may make a folder.
    folder = None if out_dir is None else prepare_folder(out_dir, overwrite)
    fits = fit_folds(estimator, X, validation, n_jobs, verbose)
    report = CrossValidationReport(
        **_tabulate(fits, X, validation),
        n_samples=len(truth),
        classes=classes,
        wall_time=perf_counter() - start,
        description=str(estimator),
        controls=controls,
    )
    if folder is not None:
        write_report(report, folder, estimator, X, validation, n_jobs)
    return report


def _tabulate(
    fits: list[FoldFit],
    X: Any,  # noqa: ANN401 - whatever the estimator takes
    validation: CrossValidation,
) -> dict[str, Any]:
    """Make what a report holds of the fits."""
    scores = tabulate_scores(fits, validation)
    predictions = tabulate_predictions(fits, X, validation)
    estimators = [fit.estimator for fit in fits]
    fitted = [one for one in estimators if one is not None]
    are_trained = all(find_trained(one) is not None for one in fitted)
    return {
        "predictions": predictions,
        "scores": scores,
        "overall": score_overall(scores, predictions, validation.scoring),
        "calibration": measure_calibration(predictions, validation.scoring.classes),
        "history": training_history(estimators) if are_trained else None,
        "estimators": estimators,
    }


def _check_parameters(
    estimator: Any,  # noqa: ANN401 - anything else is refused
    out_dir: Any,  # noqa: ANN401 - as above
    params: Any,  # noqa: ANN401 - as above
    controls: Any,  # noqa: ANN401 - as above
) -> None:
    check_estimator(estimator, OWNER)
    check_probabilistic(estimator, OWNER, is_fitted=False)
    if controls is not None:
        check_table(controls, CONTROL_COLUMNS, "controls", OWNER, "probe_controls")
    if out_dir is not None and not isinstance(out_dir, str | Path):
        raise TypeError(
            f"The 'out_dir' parameter of {OWNER} must be None, a str or a Path. Got "
            f"{out_dir!r} instead."
        )
    if params is not None and not isinstance(params, Mapping):
        raise TypeError(
            f"The 'params' parameter of {OWNER} must be None or a dict of arguments of "
            f"fit. Got {params!r} instead."
        )


def _read_labels(
    X: Any,  # noqa: ANN401 - whatever an estimator takes
    y: ArrayLike,
    groups: ArrayLike | None,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return labels of shape (n_samples,) as an array, and their sorted classes."""
    check_rows(X, y, groups, OWNER)
    labels = column_or_1d(y)
    try:
        classes = np.unique(labels)
    except TypeError:
        kinds = sorted({type(label).__name__ for label in labels})
        raise ValueError(
            "The 'y' parameter of cross_validation_report must be labels of one type. "
            f"Got {kinds} instead."
        ) from None
    is_continuous = classes.dtype.kind == "f" and (classes != np.floor(classes)).any()
    if is_continuous or len(classes) < 2:
        what = "continuous values" if is_continuous else "one class"
        raise ValueError(
            "The 'y' parameter of cross_validation_report must be labels of two "
            f"classes or more. Got {what} instead: {classes[:5].tolist()}."
        )
    return labels, classes
