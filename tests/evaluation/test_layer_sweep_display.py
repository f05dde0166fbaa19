import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from _drawn import find_overlapping_texts
from _readable import X, Y
from matplotlib.figure import Figure
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression

from plug_sklearn import (
    LayerSweepDisplay,
    layer_sweep,
)

PROBE = LogisticRegression()


def weigh(estimator: object, X: np.ndarray, y: np.ndarray) -> dict[str, float]:
    return {"weight": np.abs(estimator.coef_).mean()}


RNG = np.random.default_rng(0)
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
    assert texts == [f"part 0, layer 1: {mean:.2f}"]


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


def make_sweep(
    best: int, parts: tuple[object, ...], n_layers: int = 12, n_folds: int = 5
) -> pd.DataFrame:
    rows = [
        (layer, part, fold, 0.5 + 0.4 * np.exp(-abs(layer - best) / 3 - number / 2))
        for layer in range(n_layers)
        for number, part in enumerate(parts)
        for fold in range(n_folds)
    ]
    sweep = pd.DataFrame(rows, columns=["layer", "part", "fold", "roc_auc"])
    sweep["roc_auc"] += RNG.normal(0, 0.01, size=len(sweep))
    sweep["roc_auc_chance"], sweep["fit_time"] = 0.5, 0.0
    return sweep


@pytest.mark.parametrize("best", [0, 5, 11])
@pytest.mark.parametrize(
    "parts", [("rs", "attn", "mlp"), (*range(9),), ("a fairly long name", "another")]
)
def test_no_texts_overlap_wherever_the_best_layer_is_and_whatever_the_parts(
    best: int, parts: tuple[object, ...]
) -> None:
    display = LayerSweepDisplay(make_sweep(best, parts)).plot()
    assert find_overlapping_texts(display.figure_) == []
    height = display.ax_.get_window_extent().height
    assert height > 0.4 * display.figure_.bbox.height
    for text in (*display.ax_.texts, *display.ax_.get_legend().get_texts()):
        inside, whole = text.get_window_extent(), display.figure_.bbox
        assert whole.x0 <= inside.x0 < inside.x1 <= whole.x1
        assert whole.y0 <= inside.y0 < inside.y1 <= whole.y1


def test_one_layer_has_its_number_alone_below_it_and_a_band_to_see() -> None:
    display = LayerSweepDisplay(make_sweep(0, ("rs",), n_layers=1)).plot()
    ticks = display.ax_.get_xticks()
    assert [tick for tick in ticks if tick != int(tick)] == []
    band = display.bands_["rs"].get_window_extent()
    assert band.width > 5
    assert band.height > 5


def test_one_fold_has_no_band_to_explain(figure: Figure) -> None:
    sweep = make_sweep(5, ("rs",), n_folds=1)
    display = LayerSweepDisplay(sweep).plot(ax=figure.subplots())
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert texts == ["mean of 1 fold", "chance"]


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
    with pytest.raises(ImportError, match=r"its extra \[plots\]"):
        LayerSweepDisplay.from_estimator(None, None, None)
    with pytest.raises(ImportError, match=r"LayerSweepDisplay\.plot needs matplotlib"):
        LayerSweepDisplay(SWEEP).plot()


def test_what_cannot_be_drawn_on_is_refused_before_anything_is_computed() -> None:
    with pytest.raises(ValueError, match=r"'ax' parameter of LayerSweepDisplay\.from_"):
        LayerSweepDisplay.from_estimator(None, None, None, ax="axes")


def test_what_is_no_sweep_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'sweep' parameter .* Got the columns"):
        LayerSweepDisplay(SWEEP.drop(columns="layer"))


@pytest.mark.parametrize(
    ("scoring", "score"),
    [
        (None, "accuracy"),
        ("roc_auc", "accuracy"),
        (["roc_auc", "f1"], "accuracy"),
        ({"hits": "accuracy"}, "accuracy"),
        ([], None),
    ],
)
def test_a_score_that_will_not_be_there_is_refused_before_anything_is_computed(
    scoring: object, score: str | None
) -> None:
    with pytest.raises(ValueError, match=rf"'score' parameter .* Got {score!r}"):
        LayerSweepDisplay.from_estimator(None, None, None, scoring=scoring, score=score)


@pytest.mark.parametrize(
    ("scoring", "score"),
    [
        (None, "score"),
        (["roc_auc", "f1"], "f1"),
        ({"hits": "accuracy"}, "hits"),
        (weigh, "weight"),
    ],
)
def test_a_score_that_is_there_can_be_drawn(
    scoring: object, score: str, figure: Figure
) -> None:
    display = LayerSweepDisplay.from_estimator(
        PROBE, X, Y, cv=2, scoring=scoring, score=score, ax=figure.subplots()
    )
    assert display.score == score


@pytest.mark.parametrize("score", ["roc_auc_chance", "fit_time", "other"])
def test_what_is_no_score_of_the_sweep_is_refused(score: str) -> None:
    with pytest.raises(
        ValueError, match=r"'score' parameter .* \['roc_auc', 'accuracy"
    ):
        LayerSweepDisplay(SWEEP, score=score)


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.9, "0.90"), (-0.126, "-0.13"), (-1234567.8, "-1.23e+06"), (150.2, "150")],
)
def test_the_best_score_is_written_in_few_figures(
    value: float, written: str, figure: Figure
) -> None:
    sweep = SWEEP.assign(roc_auc=value)
    display = LayerSweepDisplay(sweep).plot(ax=figure.subplots())
    assert display.ax_.texts[0].get_text().endswith(f": {written}")
