from collections.abc import Iterable

import numpy as np
import pandas as pd
import pytest
from _drawn import find_overlapping_texts
from _readable import GROUPS, Fastidious, X, Y
from matplotlib.figure import Figure
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, KFold, cross_val_score
from sklearn.pipeline import make_pipeline

from plug_sklearn import (
    CapacityCurveDisplay,
    LayerAggregator,
    PlugCNNClassifier,
    PlugMLPClassifier,
    capacity_curve,
)

PROBE = PlugMLPClassifier(max_epochs=2, random_state=0, device="cpu")
FEATURES = X[:, 1, 0]


# The fits by hand, to which the rows are compared, tell of their limit.
@pytest.mark.filterwarnings("ignore:The 'target_ratio' parameter of")
def test_a_row_is_the_score_and_size_at_its_ratio() -> None:
    curve = capacity_curve(PROBE, FEATURES, Y, target_ratios=[1, 8], cv=2)
    assert curve["target_ratio"].tolist() == [1, 1, 8, 8]
    assert curve["fold"].tolist() == [0, 1, 0, 1]
    assert (curve["n_train"] == 60).all()
    for ratio, rows in curve.groupby("target_ratio"):
        probe = PlugMLPClassifier(
            target_ratio=ratio, max_epochs=2, random_state=0, device="cpu"
        )
        assert_allclose(rows["score"], cross_val_score(probe, FEATURES, Y, cv=2))
        fitted = probe.fit(FEATURES[:60], Y[:60])
        assert (rows["n_parameters"] == fitted.n_parameters_).all()


@pytest.mark.parametrize(
    ("make", "least", "n_least"),
    [(PlugMLPClassifier, 16, 58_180), (PlugCNNClassifier, 8, None)],
)
def test_ratios_of_one_network_say_which_limit_it_has(
    make: type, least: int, n_least: int | None
) -> None:
    # 90 training rows of so many features that every default ratio asks for less.
    wide = np.random.default_rng(0).normal(size=(120, 576))
    probe = make(max_epochs=1, random_state=0, device="cpu")
    ratios = [0.625, 1.25, 1000, 2000]
    curve = capacity_curve(probe, wide, Y, target_ratios=ratios, cv=KFold(4))
    by_ratio = curve.groupby("target_ratio")["width_limit"].unique().map(list)
    assert by_ratio.tolist() == [["least"], ["least"], ["most"], ["most"]]
    sizes = curve.groupby("target_ratio")["n_parameters"].unique().map(list).tolist()
    assert sizes[0] == sizes[1] != sizes[2] == sizes[3]
    smallest = make(width_cap=least, max_epochs=1, random_state=0, device="cpu")
    assert sizes[0] == [smallest.fit(wide[:90], Y[:90]).n_parameters_]
    assert n_least is None or sizes[0] == [n_least]


def test_a_network_within_its_limits_or_of_a_budget_has_none() -> None:
    few = FEATURES[:, :4]
    for sizing, ratios in (("heuristic", [2.0, 4.0]), ("budget", [30.0, 60.0])):
        probe = clone(PROBE).set_params(sizing=sizing)
        curve = capacity_curve(probe, few, Y, target_ratios=ratios, cv=2)
        assert (curve["width_limit"] == "none").all()
        assert curve["n_parameters"].nunique() == 2


def test_a_probe_in_a_pipeline_is_counted() -> None:
    pipeline = make_pipeline(LayerAggregator(layers=[1], parts=[0]), PROBE)
    name = "plugmlpclassifier__target_ratio"
    alone = capacity_curve(PROBE, FEATURES, Y, target_ratios=[8], cv=2)
    piped = capacity_curve(pipeline, X, Y, target_ratios=[8], param_name=name, cv=2)
    for column in ("n_parameters", "score"):
        assert_allclose(piped[column], alone[column])


def test_groups_and_several_scores_are_taken() -> None:
    curve = capacity_curve(
        PROBE,
        FEATURES,
        Y,
        target_ratios=[1],
        cv=GroupKFold(2),
        groups=GROUPS,
        scoring=["roc_auc", "accuracy"],
        n_jobs=2,
    )
    assert np.isfinite(curve[["roc_auc", "accuracy"]]).all(axis=None)


def test_what_has_no_target_ratio_is_refused() -> None:
    with pytest.raises(ValueError, match="'param_name' parameter of capacity_curve"):
        capacity_curve(LogisticRegression(), FEATURES, Y)


def test_the_parameter_of_a_step_is_named_where_it_was_meant() -> None:
    pipeline = make_pipeline(LayerAggregator(), PROBE)
    with pytest.raises(ValueError, match=r"there is 'plugmlpclassifier__target_ratio'"):
        capacity_curve(pipeline, X, Y)


@pytest.mark.parametrize(
    "wrong", [[], 5, [-1], [0], ["a"], "ab", [np.nan], [np.inf], [1, 2, 1.0]]
)
def test_ratios_are_positive_numbers(wrong: object) -> None:
    with pytest.raises(ValueError, match="'target_ratios' parameter of capacity"):
        capacity_curve(PROBE, FEATURES, Y, target_ratios=wrong)


def test_what_does_not_count_its_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'estimator' parameter .* must count"):
        capacity_curve(
            LogisticRegression(), FEATURES, Y, param_name="C", target_ratios=[1]
        )


def test_what_cannot_be_fitted_on_every_fold_is_refused_with_its_error() -> None:
    with pytest.raises(
        ValueError,
        match=r"(?s)'estimator' parameter .*not on the first row",
    ):
        capacity_curve(
            Fastidious(), FEATURES, Y, cv=KFold(3), param_name="C", target_ratios=[1]
        )


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
