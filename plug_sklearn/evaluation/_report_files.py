"""A report → the files of a run."""

from __future__ import annotations

import json
import math
import platform
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import FitFailedWarning, UndefinedMetricWarning
from sklearn.model_selection import LearningCurveDisplay, learning_curve

from plug_sklearn._extras import require_extra
from plug_sklearn.evaluation._drawing import WIDTH, finish_axes
from plug_sklearn.evaluation._folds import Folds
from plug_sklearn.evaluation._tables import Scoring, list_scores
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
FORMAT_VERSION = 1
PACKAGES = ("plug_sklearn", "scikit-learn", "numpy", "torch")
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
    return folder


def write_report(
    report: CrossValidationReport,
    folder: Path,
    estimator: BaseEstimator,
    X: Any,  # noqa: ANN401 - whatever the estimator takes
    y: NDArray[Any],
    folds: Folds,
    scoring: Scoring,
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
    estimator, X, y, folds, scoring, fit_params, n_jobs : as it was made
        What it was made from, for the curve of an estimator without epochs.
    """
    (folder / SUMMARY).unlink(missing_ok=True)
    index = report.predictions.index
    report.predictions.to_csv(
        folder / PREDICTIONS, index_label=None if any(index.names) else "index"
    )
    if report.history is not None:
        figure = _draw_history(report.history, report.estimators)
    else:
        first = list_scores(report.scores)[0]
        figure = _draw_sizes(estimator, X, y, folds, scoring, first, fit_params, n_jobs)
    figure.savefig(folder / CURVE)
    summary = json.dumps(summarise_report(report), indent=2, allow_nan=False)
    (folder / SUMMARY).write_text(summary + "\n", encoding="utf-8")


def summarise_report(report: CrossValidationReport) -> dict[str, Any]:
    """Summarise a report in what JSON can hold.

    Parameters
    ----------
    report : CrossValidationReport
        What to summarise.

    Returns
    -------
    dict
        By the keys that :func:`cross_validation_report` documents.
    """
    predictions = report.predictions
    summary: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "estimator": report.description,
        "n_samples": report.n_samples,
        "n_folds": len(report.scores),
        "n_groups": predictions["group"].nunique() if "group" in predictions else None,
        "classes": report.classes.tolist(),
        "scores": {
            name: {
                **report.overall.loc[name].to_dict(),
                "by_fold": report.scores[name].tolist(),
            }
            for name in list_scores(report.scores)
        },
        **report.calibration,
        "wall_time": report.wall_time,
        "fit_time": float(report.scores["fit_time"].sum()),
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        },
    }
    plain: dict[str, Any] = _replace_nan(summary)
    return plain


def _replace_nan(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, dict):
        return {key: _replace_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_replace_nan(item) for item in value]
    is_undefined = isinstance(value, float) and not math.isfinite(value)
    return None if is_undefined else value


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
    scoring: Scoring,
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
            scoring=_choose_first(scoring, name),
            train_sizes=np.array(TRAIN_SIZES),
            shuffle=True,
            random_state=0,
            params=dict(fit_params) or None,
            n_jobs=n_jobs,
        )
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
    spread = ", mean ± 1 sd" if len(folds) > 1 else ""
    axes.set(xlabel="Training rows", title=f"{write_folds(len(folds))}{spread}")
    axes.legend(frameon=False, ncols=2, loc="upper right")
    finish_axes(axes)
    return figure


def _choose_first(scoring: Scoring, name: str) -> Any:  # noqa: ANN401 - a scorer
    if isinstance(scoring, Mapping):
        return scoring[name]
    if callable(scoring):
        return partial(_score_one, scoring, name)
    return name


def _score_one(
    scorer: Callable[..., Any],
    name: str,
    estimator: BaseEstimator,
    X: Any,  # noqa: ANN401 - whatever the estimator takes
    y: NDArray[Any],
) -> float:
    found = scorer(estimator, X, y)
    return float(found[name] if isinstance(found, Mapping) else found)


def _make_figure(height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), dpi=100, layout="constrained")
