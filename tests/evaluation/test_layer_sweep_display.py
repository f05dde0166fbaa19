import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from _drawn import find_overlapping_texts
from _readable import X, Y
from matplotlib.figure import Figure
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression

from plug_sklearn import LayerSweepDisplay, layer_sweep

SWEEP = layer_sweep(LogisticRegression(), X, Y, scoring=["roc_auc", "accuracy"])


def test_lines_are_means_over_folds_and_bands_a_deviation_about_them(
    figure: Figure,
) -> None:
    display = LayerSweepDisplay(SWEEP).plot(ax=figure.subplots())
    for part in (0, 1):
        folds = SWEEP[SWEEP["part"] == part].groupby("layer")["roc_auc"]
        mean, deviation = folds.mean().to_numpy(), folds.std().to_numpy()
        assert_allclose(display.lines_[part].get_xdata(), [0, 1, 2])
        assert_allclose(display.lines_[part].get_ydata(), mean)
        corners = display.bands_[part].get_paths()[0].vertices
        for layer in range(3):
            ends = corners[corners[:, 0] == layer, 1]
            assert_allclose(ends.min(), (mean - deviation)[layer])
            assert_allclose(ends.max(), (mean + deviation)[layer])


def test_the_best_layer_is_marked_by_name(figure: Figure) -> None:
    display = LayerSweepDisplay(SWEEP).plot(ax=figure.subplots())
    mean = SWEEP.groupby(["layer", "part"])["roc_auc"].mean()[1, 0]
    assert display.best_ == {"layer": 1, "part": 0, "mean": pytest.approx(mean)}
    texts = [text.get_text() for text in display.ax_.texts]
    assert texts == [f"0, layer 1: {mean:.2f}"]


def test_chance_is_where_a_constant_scores(figure: Figure) -> None:
    display = LayerSweepDisplay(SWEEP).plot(ax=figure.subplots())
    assert_allclose(display.chance_line_.get_ydata(), 0.5)


def test_a_sweep_without_chance_has_no_such_line(figure: Figure) -> None:
    bare = SWEEP.drop(columns=["roc_auc_chance"])
    display = LayerSweepDisplay(bare).plot(ax=figure.subplots())
    assert display.chance_line_ is None


def test_another_score_can_be_drawn(figure: Figure) -> None:
    display = LayerSweepDisplay(SWEEP, score="accuracy").plot(ax=figure.subplots())
    assert display.ax_.get_ylabel() == "Accuracy"
    assert display.score == "accuracy"


@pytest.mark.parametrize("best", [0, 5, 11])
def test_no_texts_overlap_wherever_the_best_layer_is(best: int) -> None:
    layers, folds = np.arange(12), np.arange(5)
    rows = [
        (layer, part, fold, 0.5 + 0.4 * np.exp(-abs(layer - best) / 3 - number))
        for layer in layers
        for number, part in enumerate(("rs", "attn", "mlp"))
        for fold in folds
    ]
    sweep = pd.DataFrame(rows, columns=["layer", "part", "fold", "roc_auc"])
    sweep["roc_auc_chance"], sweep["fit_time"] = 0.5, 0.0
    display = LayerSweepDisplay(sweep).plot()
    assert find_overlapping_texts(display.figure_) == []
    inside = display.ax_.texts[0].get_window_extent()
    assert display.figure_.bbox.x0 <= inside.x0
    assert inside.x1 <= display.figure_.bbox.x1


def test_without_axes_a_figure_600_pixels_wide_is_made() -> None:
    display = LayerSweepDisplay(SWEEP).plot()
    assert display.figure_.get_figwidth() * 100 == 600
    assert display.figure_ is plt.gcf()


def test_from_estimator_draws_what_layer_sweep_finds(figure: Figure) -> None:
    axes = figure.subplots()
    display = LayerSweepDisplay.from_estimator(
        LogisticRegression(), X, Y, scoring=["roc_auc", "accuracy"], ax=axes
    )
    assert display.ax_ is axes
    assert display.figure_ is figure
    times = ["fit_time", "score_time"]
    pd.testing.assert_frame_equal(
        display.sweep.drop(columns=times), SWEEP.drop(columns=times)
    )


def test_scores_that_are_nowhere_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="'sweep' parameter of LayerSweepDisplay"):
        LayerSweepDisplay(SWEEP.assign(roc_auc=np.nan))


@pytest.mark.usefixtures("no_matplotlib")
def test_without_matplotlib_nothing_is_computed_and_the_extra_is_named() -> None:
    with pytest.raises(ImportError, match=r"plug_sklearn\[plots\]"):
        LayerSweepDisplay.from_estimator(None, None, None)
    with pytest.raises(ImportError, match=r"LayerSweepDisplay\.plot needs matplotlib"):
        LayerSweepDisplay(SWEEP).plot()


def test_what_cannot_be_drawn_on_is_refused_before_anything_is_computed() -> None:
    with pytest.raises(ValueError, match=r"'ax' parameter of LayerSweepDisplay\.from_"):
        LayerSweepDisplay.from_estimator(None, None, None, ax="axes")


def test_a_score_that_will_not_be_there_is_refused_before_anything_is_computed() -> (
    None
):
    with pytest.raises(ValueError, match=r"'score' parameter .* Got 'auc'"):
        LayerSweepDisplay.from_estimator(
            None, None, None, scoring="roc_auc", score="auc"
        )


def test_what_is_no_sweep_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'sweep' parameter .* Got the columns"):
        LayerSweepDisplay(SWEEP.drop(columns="layer"))
