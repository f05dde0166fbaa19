"""A report as one HTML page, with its pictures in it."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from plug_sklearn.evaluation._comparison import compare_scores
from plug_sklearn.evaluation._control_inputs import name_control
from plug_sklearn.evaluation._controls import ControlsDisplay
from plug_sklearn.evaluation._drawing import make_figure, name_score
from plug_sklearn.evaluation._folds import list_scores
from plug_sklearn.evaluation._reliability import ReliabilityDisplay
from plug_sklearn.evaluation._report_scores import name_columns

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from plug_sklearn.evaluation._report import CrossValidationReport

#: Everything that the page needs is in it; it asks nothing of any network.
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Cross-validation report</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff;
 max-width: 60rem; margin: 0 auto; padding: 1rem; }}
h1 {{ font-size: 1.6rem; }}
h2 {{ font-size: 1.2rem; margin-top: 2rem; border-bottom: 1px solid #ccc; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 0.25rem 0.75rem; text-align: right; white-space: nowrap;
 border-bottom: 1px solid #ddd; }}
th:first-child, td:first-child {{ text-align: left; padding-left: 0; }}
pre {{ background: #f4f4f4; padding: 0.75rem; overflow-x: auto; }}
img {{ max-width: 100%; height: auto; display: block;
 margin: 1rem 0; }}
</style>
</head>
<body>
<h1>Cross-validation report</h1>
{body}
</body>
</html>
"""


def write_page(
    report: CrossValidationReport,
    curve: Figure | None,
    versions: dict[str, str | None],
) -> str:
    """Write the page. ``curve`` is the learning curve, or None if it failed."""
    sections = [
        f"<pre>{escape(report.description)}</pre>",
        _describe_scores(report),
        _describe_calibration(report),
    ]
    if report.controls is not None:
        sections.append(_describe_controls(report.controls, report.overall.index[0]))
    if curve is not None:
        sections.append(_make_section("Training", _embed_picture(curve, "curve")))
    sections.append(_describe_setting(report, versions))
    return PAGE.format(body="\n".join(sections))


def _make_section(title: str, *elements: str) -> str:
    return "\n".join([f"<section><h2>{escape(title)}</h2>", *elements, "</section>"])


def _describe_scores(report: CrossValidationReport) -> str:
    labels = {name: name_score(name) for name in list_scores(report.scores)}
    overall = pd.DataFrame(
        {
            "Score": list(labels.values()),
            "Mean of folds": report.overall["mean"].to_numpy(),
            "95% interval": [_write_interval(report.scores, name) for name in labels],
            "Std. dev.": report.overall["std"].to_numpy(),
            "All folds together": report.overall["pooled"].to_numpy(),
        }
    )
    columns = {
        "fold": "Fold",
        **labels,
        "n_train": "Training samples",
        "n_test": "Test samples",
        "fit_time": "Seconds to fit",
    }
    note = (
        "<p>The interval is that of the mean of folds, with the correction of Nadeau "
        "and Bengio (2003) for training samples that folds share.</p>"
    )
    return _make_section(
        "Scores",
        _write_table(overall),
        note,
        "<h3>By fold</h3>",
        _write_table(report.scores[list(columns)].rename(columns=columns)),
    )


def _write_interval(scores: pd.DataFrame, name: str) -> str:
    """Write the interval of a mean over folds, where there are several."""
    defined = scores[scores[name].notna()]
    if len(defined) < 2:
        return "-"
    interval = compare_scores(
        defined[name],
        np.zeros(len(defined)),
        n_train=defined["n_train"].mean(),
        n_test=defined["n_test"].mean(),
    )
    return f"[{interval.lower:.3f}, {interval.upper:.3f}]"


def _describe_calibration(report: CrossValidationReport) -> str:
    table = pd.DataFrame(
        [
            (name.replace("_", " ").capitalize(), value)
            for name, value in report.calibration.items()
        ],
        columns=["Measure", "Value"],
    )
    columns = name_columns(report.classes)
    probabilities = report.predictions[columns].to_numpy(dtype=np.float64)
    is_predicted = np.isfinite(probabilities).all(axis=1)
    elements = [_write_table(table)]
    if is_predicted.any():
        figure = make_figure(height=4.5)
        ReliabilityDisplay.from_predictions(
            report.predictions["label"].to_numpy()[is_predicted],
            probabilities[is_predicted],
            labels=report.classes,
            method="confidence",
            ax=figure.subplots(),
        )
        elements.append(_embed_picture(figure, "Reliability diagram"))
    return _make_section("Calibration", *elements)


def _describe_controls(controls: pd.DataFrame, score: str) -> str:
    scores = list_scores(controls)
    shown = score if score in scores else scores[0]
    figure = make_figure(height=1.2 + 0.35 * controls["control"].nunique())
    display = ControlsDisplay(controls, score=shown).plot(ax=figure.subplots())
    means = controls.groupby("control", sort=False)[scores].mean().reset_index()
    means["control"] = means["control"].map(name_control)
    means.columns = pd.Index(["Control", *(name_score(name) for name in scores)])
    elements = [_embed_picture(figure, "Scores of controls"), _write_table(means)]
    if display.selectivity_ is not None:
        elements.append(
            f"<p>Selectivity, the probe's {escape(name_score(shown))} minus that on "
            f"shuffled labels: {display.selectivity_:.3f}.</p>"
        )
    return _make_section("Controls", *elements)


def _describe_setting(
    report: CrossValidationReport, versions: dict[str, str | None]
) -> str:
    groups = report.predictions.get("group")
    rows = [
        ("Samples", report.n_samples),
        ("Folds", len(report.scores)),
        ("Groups", "none" if groups is None else groups.nunique()),
        ("Classes", ", ".join(map(str, report.classes.tolist()))),
        ("Seconds", f"{report.wall_time:.1f}"),
        *((package, number or "unknown") for package, number in versions.items()),
    ]
    table = pd.DataFrame(rows, columns=["Setting", "Value"])
    return _make_section("Settings and versions", _write_table(table))


def _write_table(table: pd.DataFrame) -> str:
    with pd.option_context("display.max_colwidth", None):
        written = table.to_html(
            index=False, border=0, na_rep="-", float_format="{:.3f}".format
        )
    return f'<div class="wide">{written}</div>'


def _embed_picture(figure: Figure, description: str) -> str:
    stream = BytesIO()
    figure.savefig(stream, format="png", dpi=150)
    data = b64encode(stream.getvalue()).decode()
    return (
        f'<img alt="{escape(description)}" width="600" '
        f'src="data:image/png;base64,{data}">'
    )
