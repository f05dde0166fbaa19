"""What fails after the fits of a report costs nothing that was fitted."""

import csv
import importlib.metadata
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from _readable import GROUPS, X, Y
from matplotlib.figure import Figure
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import LeaveOneGroupOut

from plug_sklearn import PlugMLPClassifier, cross_validation_report

PROBE = LogisticRegression()
FILES = ["learning_curve.png", "predictions.csv", "report.html", "summary.json"]
KEYS = [
    *("format_version", "estimator", "n_samples", "n_folds", "n_groups", "classes"),
    *("scores", "expected_calibration_error", "brier_score", "wall_time", "fit_time"),
    "versions",
]


class Unfit(LogisticRegression):
    """Must not be fitted."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> "Unfit":
        raise AssertionError


def test_a_run_leaves_four_files(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    cross_validation_report(PROBE, FEATURES, Y, out_dir=folder)
    assert sorted(path.name for path in folder.iterdir()) == FILES


def test_the_summary_has_its_keys_and_the_reports_numbers(tmp_path: Path) -> None:
    report = cross_validation_report(
        PROBE,
        FEATURES,
        Y,
        cv=LeaveOneGroupOut(),
        groups=GROUPS,
        scoring=["accuracy", "roc_auc"],
        out_dir=tmp_path,
    )
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert list(summary) == KEYS
    assert summary["format_version"] == 1
    assert summary["n_folds"] == summary["n_groups"] == 20
    assert (summary["n_samples"], summary["classes"]) == (120, [0, 1])
    for name in ("accuracy", "roc_auc"):
        found = summary["scores"][name]
        assert list(found) == ["mean", "std", "pooled", "by_fold"]
        assert_allclose(found["by_fold"], report.scores[name])
        assert_allclose(found["pooled"], report.overall.loc[name, "pooled"])
    assert summary["wall_time"] == report.wall_time > 0


def test_what_is_undefined_is_null(tmp_path: Path) -> None:
    groups = np.where(GROUPS == 0, 100 + Y, GROUPS)
    with pytest.warns(UserWarning, match="undefined"):
        cross_validation_report(
            PROBE,
            FEATURES,
            Y,
            cv=LeaveOneGroupOut(),
            groups=groups,
            scoring="roc_auc",
            out_dir=tmp_path,
        )
    text = (tmp_path / "summary.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["scores"]["roc_auc"]["by_fold"].count(None) == 2


def test_predictions_are_read_back_with_the_index_of_the_rows(tmp_path: Path) -> None:
    index = pd.Index([f"row {n}" for n in range(len(Y))], name="id")
    frame = pd.DataFrame(FEATURES, index=index).add_prefix("unit_")
    report = cross_validation_report(PROBE, frame, Y, out_dir=tmp_path)
    found = pd.read_csv(tmp_path / "predictions.csv", index_col="id")
    pd.testing.assert_frame_equal(found, report.predictions)


def test_rows_without_an_index_are_numbered(tmp_path: Path) -> None:
    cross_validation_report(PROBE, FEATURES, Y, out_dir=tmp_path)
    found = pd.read_csv(tmp_path / "predictions.csv")
    assert found["index"].tolist() == list(range(len(Y)))


class LoggingProbe(LogisticRegression):
    """Writes down the processes that it is fitted in."""

    def __init__(self, log: str = "") -> None:
        super().__init__()
        self.log = log

    def fit(self, X: np.ndarray, y: np.ndarray) -> "LoggingProbe":
        with Path(self.log).open("a") as log:
            log.write(f"{os.getpid()}\n")
        return super().fit(X, y)


def give_two(estimator: LogisticRegression, X: np.ndarray, y: np.ndarray) -> dict:
    return {"score": estimator.score(X, y), "half": 0.5}


@pytest.mark.parametrize(
    "scoring", ["accuracy", ("accuracy", "f1"), {"hits": "accuracy"}, give_two]
)
def test_the_curve_is_of_the_first_score_in_whatever_form(
    scoring: object, tmp_path: Path
) -> None:
    cross_validation_report(PROBE, FEATURES, Y, cv=2, scoring=scoring, out_dir=tmp_path)
    assert (tmp_path / "summary.json").exists()


def test_workers_fit_what_the_curve_needs_too(tmp_path: Path) -> None:
    log = tmp_path / "log"
    cross_validation_report(
        LoggingProbe(str(log)), FEATURES, Y, cv=2, out_dir=tmp_path, n_jobs=2
    )
    fits = log.read_text().split()
    assert len(fits) == 2 + 2 * 3
    assert str(os.getpid()) not in fits


@pytest.mark.parametrize(
    "probe", [PROBE, PlugMLPClassifier(max_epochs=2, random_state=0, device="cpu")]
)
def test_the_curve_is_a_picture_600_pixels_wide(probe: object, tmp_path: Path) -> None:
    cross_validation_report(probe, FEATURES, Y, cv=2, out_dir=tmp_path)
    pixels = matplotlib.image.imread(tmp_path / "learning_curve.png")
    assert pixels.shape[1] == 600
    assert len(np.unique(pixels)) > 10


def test_a_run_is_not_replaced_unless_told(tmp_path: Path) -> None:
    cross_validation_report(PROBE, FEATURES, Y, out_dir=tmp_path)
    before = (tmp_path / "summary.json").read_text()
    with pytest.raises(FileExistsError, match=r"'out_dir' parameter .*overwrite=True"):
        cross_validation_report(Unfit(), FEATURES, Y, out_dir=tmp_path)
    assert (tmp_path / "summary.json").read_text() == before
    cross_validation_report(PROBE, FEATURES, Y, out_dir=tmp_path, overwrite=True)
    assert (tmp_path / "summary.json").read_text() != before


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    with pytest.raises(NotADirectoryError, match=r"'out_dir' parameter .*notes\.txt"):
        cross_validation_report(Unfit(), FEATURES, Y, out_dir=file)


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    cross_validation_report(PROBE, FEATURES, Y, out_dir=tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.usefixtures("no_matplotlib")
def test_without_matplotlib_nothing_is_fitted_for_files(tmp_path: Path) -> None:
    with pytest.raises(ImportError, match=r"its extra \[plots\]"):
        cross_validation_report(Unfit(), FEATURES, Y, out_dir=tmp_path)
    cross_validation_report(PROBE, FEATURES, Y)


@pytest.mark.parametrize(
    ("index", "names"),
    [
        (pd.MultiIndex.from_arrays([GROUPS, np.arange(120)]), ["level_0", "level_1"]),
        (
            pd.MultiIndex.from_arrays([GROUPS, np.arange(120)], names=["who", None]),
            ["who", "level_1"],
        ),
        (
            pd.MultiIndex.from_arrays([GROUPS, GROUPS + Y], names=["fold", "fold"]),
            ["fold_", "fold__"],
        ),
        (pd.Index(np.arange(120), name="label"), ["label_"]),
        (pd.Index(np.arange(120), name="proba_1"), ["proba_1_"]),
        (pd.Index(np.arange(120), name="index"), ["index"]),
        (pd.Index(np.arange(120), name=0), ["0"]),
        (pd.Index(np.arange(120), name=""), [""]),
        (pd.date_range("2020", periods=120), ["index"]),
    ],
)
def test_table_of_predictions_names_each_column_once(
    index: pd.Index, names: list[str], tmp_path: Path
) -> None:
    frame = pd.DataFrame(FEATURES, index=index).add_prefix("unit_")
    report = cross_validation_report(PROBE, frame, Y, cv=2, out_dir=tmp_path)
    assert report.predictions.index.equals(index)
    with (tmp_path / "predictions.csv").open(encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == [*names, *report.predictions.columns]
    assert len(rows) == 120
    levels = [index.get_level_values(n) for n in range(index.nlevels)]
    for row, *expected in zip(rows, *levels, strict=True):
        assert row[: len(names)] == [str(value).split(" ")[0] for value in expected]
        assert len(row) == len(header)


FEATURES = X[:, 1, 0].astype(np.float64)
NAMES = np.array(["ant", "bee", "cat"])


class PredictsElsewhere(LogisticRegression):
    """Fits anywhere, and cannot predict the first row."""

    def predict_proba(self, X: Any) -> Any:  # noqa: ANN401
        if X[0, 0] == FEATURES[0, 0]:
            raise MemoryError("too long a text")
        return super().predict_proba(X)


def test_fold_that_cannot_be_predicted_has_no_probabilities(tmp_path: Path) -> None:
    with pytest.warns(UserWarning) as warned:
        report = cross_validation_report(
            PredictsElsewhere(), FEATURES, NAMES[Y], cv=3, out_dir=tmp_path
        )
    assert any("too long a text" in str(w.message) for w in warned)
    table = report.predictions
    is_first = table["fold"] == 0
    assert (
        table.loc[is_first, ["proba_ant", "proba_bee", "predicted"]]
        .isna()
        .all(axis=None)
    )
    others = table[~is_first]
    assert set(others["predicted"]) == {"ant", "bee"}
    p = others[["proba_ant", "proba_bee"]].to_numpy()
    expected = -log_loss(others["label"], p)
    assert_allclose(report.overall.loc["neg_log_loss", "pooled"], expected)
    assert np.isfinite(list(report.calibration.values())).all()
    assert json.loads((tmp_path / "summary.json").read_text())["n_folds"] == 3


class Unnormalised(LogisticRegression):
    """Gives what does not add up to one."""

    def predict_proba(self, X: Any) -> Any:  # noqa: ANN401
        return 0.5 * super().predict_proba(X)


def test_calibration_of_what_is_no_probability_is_nan() -> None:
    with pytest.warns(UserWarning, match="must have rows that add up to 1"):
        report = cross_validation_report(
            Unnormalised(), FEATURES, Y, cv=2, scoring="accuracy"
        )
    assert np.isnan(list(report.calibration.values())).all()
    assert report.scores["accuracy"].notna().all()


def test_copy_that_is_not_installed_has_no_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.metadata.distribution

    def find_installed(package: str) -> importlib.metadata.Distribution:
        if package == "plug_sklearn":
            raise importlib.metadata.PackageNotFoundError(package)
        return find(package)

    monkeypatch.setattr(importlib.metadata, "distribution", find_installed)
    cross_validation_report(PROBE, FEATURES, Y, cv=2, out_dir=tmp_path)
    versions = json.loads((tmp_path / "summary.json").read_text())["versions"]
    assert versions["plug_sklearn"] is None
    assert versions["numpy"] == np.__version__


@pytest.mark.parametrize("missing", ["learning_curve.png", "predictions.csv"])
def test_file_that_cannot_be_written_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no room")

    lost = {missing}
    if missing == "predictions.csv":
        monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    else:
        monkeypatch.setattr(Figure, "savefig", fail)
        # The page holds pictures too.
        lost |= {"report.html"}
    with pytest.warns(UserWarning, match=r"cannot write .*no room") as warned:
        report = cross_validation_report(PROBE, FEATURES, Y, cv=2, out_dir=tmp_path)
    assert len(warned) == len(lost)
    assert len(report.scores) == 2
    assert {path.name for path in tmp_path.iterdir()} == set(FILES) - lost


def test_folder_that_cannot_be_written_is_told_before_the_first_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(PermissionError, match="read-only"):
        cross_validation_report(Unfit(), FEATURES, Y, out_dir=tmp_path)


def test_run_that_is_stopped_while_it_writes_leaves_no_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cross_validation_report(PROBE, FEATURES, Y, cv=2, out_dir=tmp_path)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pd.DataFrame, "to_csv", stop)
    with pytest.raises(KeyboardInterrupt):
        cross_validation_report(
            PROBE, FEATURES, Y, cv=2, out_dir=tmp_path, overwrite=True
        )
    assert not (tmp_path / "summary.json").exists()
