"""The quickstart's checks show what was put into the activations."""

import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from plug_sklearn import ControlsDisplay

EXAMPLES = Path(__file__).parents[2] / "examples"
RNG = np.random.default_rng(0)
Y = np.arange(200) % 2
FOLDS = [(np.arange(100), np.arange(100, 200)), (np.arange(100, 200), np.arange(100))]


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    monkeypatch.syspath_prepend(EXAMPLES)
    return runpy.run_path(str(EXAMPLES / "checks.py"))


def test_a_probe_of_what_denial_leaves_alone_is_inverted_by_it(
    checks: dict[str, object],
) -> None:
    # Unit 0 says whether names belong together; unit 1, whether "not" is there.
    stated, denied = RNG.normal(size=(2, 200, 4)).astype(np.float32)
    stated[:, 0] += 4 * Y
    denied[:, 0] += 4 * Y
    denied[:, 1] += 6
    scores = checks["compare_negations"](stated, denied, Y, FOLDS)  # type: ignore[operator]  # a module run as a script
    assert scores.loc[("stated", "stated"), "roc_auc"] > 0.9
    assert scores.loc[("stated", "denied"), "roc_auc"] < 0.1
    report = checks["report_negations"](scores)  # type: ignore[operator]  # as above
    assert "takes true for false" in report
    # One that reads truth itself holds, and nothing is said of an inversion.
    denied[:, 0] = RNG.normal(size=200) + 4 * (1 - Y)
    scores = checks["compare_negations"](stated, denied, Y, FOLDS)  # type: ignore[operator]  # as above
    assert scores.loc[("stated", "denied"), "roc_auc"] > 0.9
    assert "true for false" not in checks["report_negations"](scores)  # type: ignore[operator]  # as above


def test_controls_are_a_row_each_and_the_best_is_named(
    checks: dict[str, object],
) -> None:
    names = ["probe", "bag_of_words", "shuffled_labels"]
    table = pd.DataFrame(
        {
            "control": names,
            "fold": 0,
            "roc_auc": [0.9, 0.7, 0.5],
            "accuracy": [0.8, 0.6, 0.5],
            "fit_time": 0.1,
        }
    )
    report = checks["report_controls"](ControlsDisplay(table))  # type: ignore[operator]  # as above
    assert "over shuffled labels: 0.40" in report
    assert "The best control is bag_of_words" in report
    assert all(name in report for name in names)
