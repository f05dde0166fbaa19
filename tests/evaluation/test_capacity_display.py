from collections.abc import Iterable

import numpy as np
import pandas as pd
import pytest
from _drawn import find_overlapping_texts
from _readable import X, Y
from matplotlib.figure import Figure
from numpy.testing import assert_allclose

from plug_sklearn import (
    CapacityCurveDisplay,
    PlugMLPClassifier,
)

PROBE = PlugMLPClassifier(max_epochs=2, random_state=0, device="cpu")
FEATURES = X[:, 1, 0]


CURVE = pd.DataFrame(
    {
        "target_ratio": [1.0, 1.0, 2.0, 2.0, 4.0, 4.0],
        "n_train": [50, 60] * 3,
        "n_parameters": [100, 100, 120, 140, 200, 240],
        "fold": [0, 1] * 3,
        "roc_auc": [0.5, 0.6, 0.8, 0.9, 0.7, 0.7],
        "accuracy": [0.5] * 6,
        "fit_time": [0.0] * 6,
    }
)


def test_curves_are_means_over_folds(figure: Figure) -> None:
    display = CapacityCurveDisplay(CURVE).plot(ax=figure.subplots(2))
    assert_allclose(display.score_line_.get_xdata(), [1, 2, 4])
    assert_allclose(display.score_line_.get_ydata(), [0.55, 0.85, 0.7])
    assert_allclose(display.parameters_line_.get_ydata(), [100, 130, 220])
    assert_allclose(display.budget_line_.get_ydata(), [55, 110, 220])


def test_the_best_ratio_is_marked(figure: Figure) -> None:
    display = CapacityCurveDisplay(CURVE).plot(ax=figure.subplots())
    assert display.best_ratio_ == 2
    assert display.ax_[0].texts[0].get_text() == "0.850"


def test_networks_at_a_limit_are_hollow_and_the_legend_says_what_to_do(
    figure: Figure,
) -> None:
    limits = ["least", "least", "least", "none", "most", "most"]
    curve = CURVE.assign(width_limit=limits)
    display = CapacityCurveDisplay(curve).plot(ax=figure.subplots(2))
    assert display.summary_["width_limit"].tolist() == ["least", "none", "most"]
    places = [mark.get_xydata().tolist() for mark in display.limit_marks_]
    assert places == [[[1, 100]], [[4, 220]]]
    texts = [text.get_text() for text in display.ax_[1].get_legend().get_texts()]
    assert 'least width; sizing="budget" goes below' in texts
    assert 'greatest width; sizing="budget" goes above' in texts


def test_no_limit_is_drawn_where_there_is_none(figure: Figure) -> None:
    for curve in (CURVE, CURVE.assign(width_limit="none")):
        display = CapacityCurveDisplay(curve).plot(ax=figure.subplots(2))
        assert display.limit_marks_ == []
        assert len(display.ax_[1].get_legend().get_texts()) == 2


def test_another_score_can_be_drawn(figure: Figure) -> None:
    display = CapacityCurveDisplay(CURVE, score="accuracy").plot(ax=figure.subplots(2))
    assert_allclose(display.score_line_.get_ydata(), 0.5)


@pytest.mark.parametrize(
    "ratios", [[1, 2, 4], range(1, 31), np.geomspace(0.5, 50, 9), [5]]
)
def test_no_texts_overlap_whatever_the_ratios(ratios: Iterable[float]) -> None:
    rows = CURVE[CURVE["target_ratio"] == 2]
    curve = pd.concat([rows.assign(target_ratio=float(ratio)) for ratio in ratios])
    display = CapacityCurveDisplay(curve).plot()
    assert find_overlapping_texts(display.figure_) == []
    assert display.figure_.get_figwidth() * 100 == 600
    labels = [label.get_text() for label in display.ax_[1].get_xticklabels()]
    assert sum(map(bool, labels)) >= min(len(labels), 5)


def test_one_fold_has_no_band_to_explain(figure: Figure) -> None:
    display = CapacityCurveDisplay(CURVE[CURVE["fold"] == 0]).plot(figure.subplots(2))
    texts = [text.get_text() for text in display.ax_[0].get_legend().get_texts()]
    assert texts == ["mean of 1 fold"]


def test_from_estimator_draws_what_capacity_curve_finds(figure: Figure) -> None:
    probe = PlugMLPClassifier(max_epochs=2, random_state=0, device="cpu")
    display = CapacityCurveDisplay.from_estimator(
        probe, X[:, 1, 0], Y, target_ratios=[1, 8], cv=2, ax=figure.subplots()
    )
    assert display.summary_["target_ratio"].tolist() == [1, 8]
    assert display.figure_ is figure


@pytest.mark.usefixtures("no_matplotlib")
def test_without_matplotlib_the_extra_is_named() -> None:
    with pytest.raises(ImportError, match=r"its extra \[plots\]"):
        CapacityCurveDisplay.from_estimator(None, None, None)


def test_what_cannot_be_drawn_on_is_refused_before_anything_is_computed() -> None:
    with pytest.raises(
        ValueError, match=r"'ax' parameter of CapacityCurveDisplay\.from_"
    ):
        CapacityCurveDisplay.from_estimator(None, None, None, ax="axes")


def test_a_score_that_will_not_be_there_is_refused_before_anything_is_computed() -> (
    None
):
    with pytest.raises(ValueError, match=r"'score' parameter .* Got 'auc'"):
        CapacityCurveDisplay.from_estimator(
            None, None, None, scoring=["roc_auc"], score="auc"
        )


def test_what_is_no_curve_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'curve' parameter .* Got the columns"):
        CapacityCurveDisplay(CURVE.drop(columns="n_train"))
    with pytest.raises(ValueError, match=r"'curve' parameter .* that are numbers"):
        CapacityCurveDisplay(CURVE.assign(roc_auc=float("nan")))
