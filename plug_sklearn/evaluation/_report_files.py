"""A report → the files of a run."""

from __future__ import annotations

import json
import math
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import FitFailedWarning, UndefinedMetricWarning
from sklearn.model_selection import LearningCurveDisplay, learning_curve

from plug_sklearn._extras import require_extra
from plug_sklearn._warnings import warn_user
from plug_sklearn.evaluation._drawing import WIDTH, finish_axes
from plug_sklearn.evaluation._fold_scorer import FoldScorer
from plug_sklearn.evaluation._folds import Folds
from plug_sklearn.evaluation._report_summary import summarise_report
from plug_sklearn.evaluation._tables import list_scores
from plug_sklearn.evaluation._training_curves import (
    TRAINING,
    VALIDATION,
    TrainingCurveDisplay,
)
from plug_sklearn.evaluation._wording import name_score, write_folds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from plug_sklearn.evaluation._report import CrossValidationReport

PREDICTIONS, CURVE, SUMMARY = "predictions.csv", "learning_curve.png", "summary.json"
#: Of the rows of a fold: what an estimator without epochs is fitted on for its curve.
TRAIN_SIZES = (0.25, 0.5, 1.0)


def prepare_folder(out_dir: str | Path, overwrite: bool) -> Path:
    """Make sure that a report can be written, before anything is computed.

    Parameters
    ----------
    out_dir : str or Path
        Folder to write to; made if it is not there.
    overwrite : bool
        Whether a run that is there may be replaced.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    FileExistsError
        If it holds a run that may not be replaced.
    ImportError
        If matplotlib is not installed.
    NotADirectoryError
        If it is a file.
    """
    require_extra("plots", "cross_validation_report with out_dir")
    folder = Path(out_dir)
    found = [name for name in (PREDICTIONS, CURVE, SUMMARY) if (folder / name).exists()]
    if found and not overwrite:
        raise FileExistsError(
            "The 'out_dir' parameter of cross_validation_report must be a folder "
            f"without a run, or 'overwrite' True. Found {found} in {folder}."
        )
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(
            "The 'out_dir' parameter of cross_validation_report must be a folder. Got "
            f"the file {folder} instead."
        )
    folder.mkdir(parents=True, exist_ok=True)
    # Where nothing may be written, this fails, before anything is computed.
    with tempfile.TemporaryFile(dir=folder):
        return folder


def write_report(
    report: CrossValidationReport,
    folder: Path,
    estimator: BaseEstimator,
    X: Any,  # noqa: ANN401 - whatever the estimator takes
    y: NDArray[Any],
    folds: Folds,
    scorer: FoldScorer,
    fit_params: Mapping[str, Any],
    n_jobs: int | None,
) -> None:
    """Write the files of a run; the summary last, so that one with it is whole.

    Parameters
    ----------
    report : CrossValidationReport
        What to write.
    folder : Path
        Where to.
    estimator, X, y, folds, scorer, fit_params, n_jobs : as it was made
        What it was made from, for the curve of an estimator without epochs.
    """
    (folder / SUMMARY).unlink(missing_ok=True)
    with _warning_of(PREDICTIONS):
        label = name_index(report.predictions)
        report.predictions.to_csv(folder / PREDICTIONS, index_label=label)
    with _warning_of(CURVE):
        if report.history is not None:
            figure = _draw_history(report.history, report.estimators)
        else:
            name = list_scores(report.scores)[0]
            # A fold whose fit failed would fail here again.
            fitted = [
                fold
                for fold, one in zip(folds, report.estimators, strict=True)
                if one is not None
            ]
            figure = _draw_sizes(
                estimator, X, y, fitted, scorer, name, fit_params, n_jobs
            )
        figure.savefig(folder / CURVE)
    with _warning_of(SUMMARY):
        summary = json.dumps(summarise_report(report), indent=2, allow_nan=False)
        (folder / SUMMARY).write_text(summary + "\n", encoding="utf-8")


def name_index(table: pd.DataFrame) -> str | list[str]:
    """Name the levels of a table's index, by names that no column has.

    Parameters
    ----------
    table : DataFrame
        Of any index.

    Returns
    -------
    str or list of str
        One for each level: its own; or ``"index"``, or ``"level_0"``, ``"level_1"``
        and so on for several, where it has none; with ``"_"`` added as long as a column
        or a level before it has that name.
    """
    several = table.index.nlevels > 1
    names: list[str] = []
    for number, own in enumerate(table.index.names):
        name = (f"level_{number}" if several else "index") if own is None else str(own)
        while name in names or name in table.columns:
            name += "_"
        names.append(name)
    return names if several else names[0]


@contextmanager
def _warning_of(file: str) -> Iterator[None]:
    """Warn of a file that cannot be made, in place of an error that loses the rest."""
    try:
        yield
    except Exception as error:
        warn_user(
            f"cross_validation_report cannot write {file}: {error!r}. What it returns "
            "is whole."
        )


def _draw_history(history: pd.DataFrame, estimators: list[Any]) -> Figure:
    figure = _make_figure(height=6.0)
    n_rows = 1 + ("valid_score" in history)
    axes = figure.subplots(n_rows, sharex=True, squeeze=False)[:, 0]
    display = TrainingCurveDisplay.from_estimator(estimators, ax=list(axes))
    display.ax_[0].set_title("Training, one line a fold")
    return figure


def _draw_sizes(
    estimator: BaseEstimator,
    X: Any,  # noqa: ANN401 - whatever the estimator takes
    y: NDArray[Any],
    folds: Folds,
    scorer: FoldScorer,
    name: str,
    fit_params: Mapping[str, Any],
    n_jobs: int | None,
) -> Figure:
    with warnings.catch_warnings():
        # A quarter of the rows may hold one class alone; its point is left out.
        warnings.simplefilter("ignore", FitFailedWarning)
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        sizes, train, test = learning_curve(
            estimator,
            X,
            y,
            cv=folds,
            scoring=partial(_score_one, scorer, name),
            train_sizes=np.array(TRAIN_SIZES),
            shuffle=True,
            random_state=0,
            params=dict(fit_params) or None,
            n_jobs=n_jobs,
        )
    # One fold whose score is undefined would leave nothing to draw of the others.
    is_defined = np.isfinite(test[-1])
    if is_defined.any():
        train, test = train[:, is_defined], test[:, is_defined]
    n_folds = test.shape[1]
    figure = _make_figure(height=4.0)
    axes = figure.subplots()
    display = LearningCurveDisplay(
        train_sizes=sizes,
        train_scores=train,
        test_scores=test,
        score_name=name_score(name),
    ).plot(
        ax=axes,
        line_kw={"marker": "o"},
        fill_between_kw={"alpha": 0.15, "linewidth": 0},
    )
    for style, line, band in zip(
        (TRAINING, VALIDATION), display.lines_, display.fill_between_, strict=True
    ):
        line.set(color=style["color"], linestyle=style["linestyle"])
        band.set(color=style["color"], linewidth=0)
    axes.margins(y=0.15)
    spread = ", mean ± 1 sd" if n_folds > 1 else ""
    axes.set(xlabel="Training rows", title=f"{write_folds(n_folds)}{spread}")
    axes.legend(frameon=False, ncols=2, loc="upper right")
    finish_axes(axes)
    return figure


def _score_one(
    scorer: FoldScorer,
    name: str,
    estimator: BaseEstimator,
    X: Any,  # noqa: ANN401 - whatever the estimator takes
    y: NDArray[Any],
) -> float:
    return scorer(estimator, X, y).get(name, math.nan)


def _make_figure(height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), dpi=100, layout="constrained")
