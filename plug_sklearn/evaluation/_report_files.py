"""Write the files of a report: predictions, a summary and a learning curve."""

from __future__ import annotations

import json
import math
import platform
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import FitFailedWarning, UndefinedMetricWarning
from sklearn.model_selection import LearningCurveDisplay, learning_curve

from plug_sklearn._packages import find_version, require_extra
from plug_sklearn._warnings import warn_user
from plug_sklearn.evaluation._drawing import (
    finish_axes,
    make_figure,
    name_score,
    write_folds,
    write_name,
)
from plug_sklearn.evaluation._folds import (
    CrossValidation,
    list_scores,
)
from plug_sklearn.evaluation._report_page import write_page
from plug_sklearn.evaluation._report_scores import FoldScorer
from plug_sklearn.evaluation._training_curves import (
    TRAINING,
    VALIDATION,
    TrainingCurveDisplay,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from plug_sklearn.evaluation._report import CrossValidationReport

FORMAT_VERSION = 1
#: Packages whose versions the summary records.
PACKAGES = ("plug_sklearn", "scikit-learn", "numpy", "torch")
PREDICTIONS, CURVE, SUMMARY = "predictions.csv", "learning_curve.png", "summary.json"
PAGE = "report.html"
#: Fractions of the training samples for the curve of an estimator without epochs.
TRAIN_SIZES = (0.25, 0.5, 1.0)


def prepare_folder(out_dir: str | Path, overwrite: bool) -> Path:
    """Check that a report can be written, and make its folder."""
    require_extra("plots", "cross_validation_report with out_dir")
    folder = Path(out_dir)
    found = [
        name for name in (PREDICTIONS, CURVE, PAGE, SUMMARY) if (folder / name).exists()
    ]
    if found and not overwrite:
        raise FileExistsError(
            "The 'out_dir' parameter of cross_validation_report must be a folder "
            f"without files of an earlier run, unless overwrite=True. Got {folder}, "
            f"which holds {found}."
        )
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(
            "The 'out_dir' parameter of cross_validation_report must be a folder. Got "
            f"the file {folder} instead."
        )
    folder.mkdir(parents=True, exist_ok=True)
    # This fails if nothing may be written there.
    with tempfile.TemporaryFile(dir=folder):
        return folder


def write_report(
    report: CrossValidationReport,
    folder: Path,
    estimator: BaseEstimator,
    X: Any,  # noqa: ANN401 - whatever the estimator takes
    validation: CrossValidation,
    n_jobs: int | None,
) -> None:
    """Write the files of a run; the summary comes last, so that a run with it is whole.

    What it was made from is needed for the curve of an estimator without epochs.
    """
    (folder / SUMMARY).unlink(missing_ok=True)
    with _warn_instead(PREDICTIONS):
        label = _name_index(report.predictions)
        report.predictions.to_csv(folder / PREDICTIONS, index_label=label)
    figure = None
    with _warn_instead(CURVE):
        if report.history is not None:
            figure = _draw_history(report.history, report.estimators)
        else:
            name = list_scores(report.scores)[0]
            # A fold whose fit failed would fail here again.
            fitted = [
                fold
                for fold, one in zip(validation.folds, report.estimators, strict=True)
                if one is not None
            ]
            own = replace(validation, folds=fitted)
            scores = _score_sizes(estimator, X, own, name, n_jobs)
            figure = _draw_sizes(*scores, name)
        figure.savefig(folder / CURVE)
    with _warn_instead(PAGE):
        page = write_page(report, figure, _list_versions())
        (folder / PAGE).write_text(page, encoding="utf-8")
    with _warn_instead(SUMMARY):
        summary = json.dumps(_summarise(report), indent=2, allow_nan=False)
        (folder / SUMMARY).write_text(summary + "\n", encoding="utf-8")


def _summarise(report: CrossValidationReport) -> dict[str, Any]:
    """Return the content of ``summary.json``, as the report's function documents it."""
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
        "versions": _list_versions(),
    }
    plain: dict[str, Any] = _replace_nan(summary)
    return plain


def _list_versions() -> dict[str, str | None]:
    return {
        "python": platform.python_version(),
        **{package: find_version(package) for package in PACKAGES},
    }


def _replace_nan(value: Any) -> Any:  # noqa: ANN401 - any value of JSON
    """Replace numbers that JSON cannot hold by None."""
    if isinstance(value, dict):
        return {key: _replace_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_replace_nan(item) for item in value]
    is_undefined = isinstance(value, float) and not math.isfinite(value)
    return None if is_undefined else value


def _name_index(table: pd.DataFrame) -> str | list[str]:
    """Return names for the levels of a table's index that no column has.

    A level without a name is ``"index"``, or ``"level_0"`` and so on if there are
    several. ``"_"`` is added while a column or another level has the name.
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
def _warn_instead(file: str) -> Iterator[None]:
    """Turn an error into a warning, so that a failed file does not lose the report."""
    try:
        yield
    except Exception as error:
        warn_user(
            f"cross_validation_report cannot write {file}: {error!r}. The report "
            "that it returns is complete."
        )


def _draw_history(history: pd.DataFrame, estimators: list[Any]) -> Figure:
    figure = make_figure(height=6.0)
    n_rows = 1 + ("valid_score" in history)
    axes = figure.subplots(n_rows, sharex=True, squeeze=False)[:, 0]
    display = TrainingCurveDisplay.from_estimator(estimators, ax=list(axes))
    display.ax_[0].set_title("Training, one line for each fold")
    return figure


def _score_sizes(
    estimator: BaseEstimator,
    X: Any,  # noqa: ANN401 - whatever the estimator takes
    validation: CrossValidation,
    name: str,
    n_jobs: int | None,
) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
    """Score an estimator that is fitted on fractions of the training samples.

    Returns numbers of samples, and training and test scores (n_sizes, n_folds).
    """
    with warnings.catch_warnings():
        # A quarter of the samples may hold one class alone. It then has no point.
        warnings.simplefilter("ignore", FitFailedWarning)
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        sizes, train, test = learning_curve(
            estimator,
            X,
            validation.y,
            cv=validation.folds,
            scoring=partial(_score_one, validation.scoring, name),
            train_sizes=np.array(TRAIN_SIZES),
            shuffle=True,
            random_state=0,
            params=validation.collect_params(estimator) or None,
            n_jobs=n_jobs,
        )
    # One fold whose score is undefined would leave nothing to draw of the others.
    is_defined = np.isfinite(test[-1])
    if is_defined.any():
        train, test = train[:, is_defined], test[:, is_defined]
    return sizes, train, test


def _draw_sizes(
    sizes: NDArray[np.intp],
    train: NDArray[np.float64],
    test: NDArray[np.float64],
    name: str,
) -> Figure:
    n_folds = test.shape[1]
    figure = make_figure(height=4.0)
    axes = figure.subplots()
    display = LearningCurveDisplay(
        train_sizes=sizes,
        train_scores=train,
        test_scores=test,
        score_name=write_name(name_score(name)),
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
    axes.set(xlabel="Training samples", title=f"{write_folds(n_folds)}{spread}")
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
