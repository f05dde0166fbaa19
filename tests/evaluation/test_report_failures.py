"""What fails after the fits of a report costs nothing that was fitted."""

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from _readable import X, Y
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from plug_sklearn import cross_validation_report
from plug_sklearn.evaluation import _report_files

FEATURES = X[:, 1, 0].astype(np.float64)
PROBE = LogisticRegression()
NAMES = np.array(["ant", "bee", "cat"])


class Unfit(LogisticRegression):
    """Must not be fitted."""

    def fit(self, X: object, y: object) -> "Unfit":
        raise AssertionError


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
    find = importlib.metadata.version

    def find_installed(package: str) -> str:
        if package == "plug_sklearn":
            raise importlib.metadata.PackageNotFoundError(package)
        return find(package)

    monkeypatch.setattr("plug_sklearn._provenance.version", find_installed)
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

    if missing == "predictions.csv":
        monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    else:
        monkeypatch.setattr(_report_files, "_draw_sizes", fail)
    with pytest.warns(UserWarning, match=rf"cannot write {missing}: .*no room"):
        report = cross_validation_report(PROBE, FEATURES, Y, cv=2, out_dir=tmp_path)
    assert len(report.scores) == 2
    names = {"learning_curve.png", "predictions.csv", "summary.json"} - {missing}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_folder_that_cannot_be_written_is_told_before_the_first_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(_report_files.tempfile, "TemporaryFile", refuse)
    with pytest.raises(PermissionError, match="read-only"):
        cross_validation_report(Unfit(), FEATURES, Y, out_dir=tmp_path)
