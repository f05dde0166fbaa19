"""One page holds all that a report says, and asks nothing of a network."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from _readable import GROUPS, X, Y
from scipy import stats
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline

from plug_sklearn import (
    CrossValidationReport,
    LayerAggregator,
    cross_validation_report,
    probe_controls,
)

PROBE = make_pipeline(LayerAggregator(layers=[1]), LogisticRegression(C=0.1))


class Page(HTMLParser):
    """The texts of cells by row, titles, pictures, and everything that links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.titles: list[str] = []
        self.sources: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        self.sources += [v or "" for name, v in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1].append(data)
        if self.open and self.open[-1] == "h2":
            self.titles.append(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def report(folder: Path) -> CrossValidationReport:
    setting = {"cv": GroupKFold(4), "groups": GROUPS, "scoring": ["roc_auc", "f1"]}
    controls = probe_controls(PROBE, X, Y, random_state=0, **setting)
    return cross_validation_report(
        PROBE, X, Y, controls=controls, out_dir=folder, **setting
    )


@pytest.fixture
def page(folder: Path, report: CrossValidationReport) -> Page:
    return Page((folder / "report.html").read_text())


def test_scores_and_their_intervals_are_shown(
    page: Page, report: CrossValidationReport
) -> None:
    by_fold = report.scores["roc_auc"]
    # Nadeau and Bengio: the variance of a fold times 1 / 4 + 30 / 90.
    error = np.sqrt((1 / 4 + 30 / 90) * by_fold.var(ddof=1))
    width = error * stats.t.ppf(0.975, 3)
    lower, upper = by_fold.mean() - width, by_fold.mean() + width
    assert [
        "ROC AUC",
        f"{by_fold.mean():.3f}",
        f"[{lower:.3f}, {upper:.3f}]",
        f"{by_fold.std():.3f}",
        f"{report.overall.loc['roc_auc', 'pooled']:.3f}",
    ] in page.rows
    assert ["0", f"{by_fold[0]:.3f}"] in [row[:2] for row in page.rows]


def test_sections_are_complete_and_controls_are_shown(
    page: Page, report: CrossValidationReport
) -> None:
    expected = ["Scores", "Calibration", "Controls", "Training"]
    assert page.titles == [*expected, "Settings and versions"]
    assert report.controls is not None
    means = report.controls.groupby("control")[["roc_auc", "f1"]].mean()
    for control, label in (("probe", "Probe"), ("shuffled_labels", "Shuffled labels")):
        cells = [f"{value:.3f}" for value in means.loc[control]]
        assert [label, *cells] in page.rows
    calibration = f"{report.calibration['brier_score']:.3f}"
    assert ["Brier score", calibration] in page.rows
    assert ["Groups", "20"] in page.rows


def test_nothing_is_asked_of_a_network(page: Page, folder: Path) -> None:
    assert len(page.sources) == 3
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    text = re.sub(
        r"data:image/png;base64,[^\"]+", "", (folder / "report.html").read_text()
    )
    assert "http://" not in text
    assert "https://" not in text
    assert "<script" not in text


def test_what_users_name_is_no_markup(tmp_path: Path) -> None:
    labels = np.array(["<b>no</b>", "yes & no"])[Y]
    report = cross_validation_report(
        DummyClassifier(), X.reshape(120, -1), labels, cv=2, out_dir=tmp_path
    )
    text = (tmp_path / "report.html").read_text()
    assert "<b>" not in text
    assert "&lt;b&gt;no&lt;/b&gt;, yes &amp; no" in text
    assert report.controls is None
    assert "Controls" not in Page(text).titles


def test_other_tables_of_controls_are_refused_before_a_fit() -> None:
    with pytest.raises(ValueError, match="'controls' parameter of cross_validation_re"):
        cross_validation_report(PROBE, X, Y, controls={"probe": 1.0})  # type: ignore[arg-type]  # what is tested
