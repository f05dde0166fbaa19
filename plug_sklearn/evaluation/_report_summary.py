"""A report → the numbers of it that JSON can hold."""

from __future__ import annotations

import math
import platform
from typing import TYPE_CHECKING, Any

from plug_sklearn._provenance import find_version
from plug_sklearn.evaluation._tables import list_scores

if TYPE_CHECKING:
    from plug_sklearn.evaluation._report import CrossValidationReport

FORMAT_VERSION = 1
PACKAGES = ("plug_sklearn", "scikit-learn", "numpy", "torch")


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
            **{package: find_version(package) for package in PACKAGES},
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
