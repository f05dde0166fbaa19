import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from _drawn import find_overlapping_texts
from _readable import X, Y
from matplotlib.figure import Figure
from numpy.testing import assert_allclose
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, StratifiedKFold, cross_validate
from sklearn.pipeline import make_pipeline

from plug_sklearn import (
    HFEmbeddingTransformer,
    LayerAggregator,
    LayerSweepDisplay,
    layer_sweep,
)

PROBE = LogisticRegression()
TEXTS = [f"The number {number} is odd." for number in range(24)]
ODD = np.arange(24) % 2


class CountingEmbedder(TransformerMixin, BaseEstimator):
    """Numbers two layers 5 and 9; counts the texts that it reads."""

    read: list[int] = []  # noqa: RUF012 - clones are to share it

    def fit(self, X: list[str], y: object = None) -> "CountingEmbedder":
        self.layers_, self.parts_ = (5, 9), ("mlp",)
        return self

    def transform(self, X: list[str]) -> np.ndarray:
        self.read.append(len(X))
        return np.random.default_rng(0).normal(size=(len(X), 2, 1, 4))


def test_a_row_is_what_cross_validation_of_the_pipeline_scores() -> None:
    scoring = ["roc_auc", "accuracy"]
    sweep = layer_sweep(PROBE, X, Y, cv=4, scoring=scoring)
    for (layer, part), rows in sweep.groupby(["layer", "part"]):
        pipeline = make_pipeline(LayerAggregator(layers=[layer], parts=[part]), PROBE)
        expected = cross_validate(pipeline, X, Y, cv=4, scoring=scoring)
        for name in scoring:
            assert_allclose(rows[name], expected[f"test_{name}"])


def test_there_is_a_row_for_each_layer_part_and_fold_in_this_order() -> None:
    sweep = layer_sweep(PROBE, X, Y, cv=2)
    expected = [(la, p, f) for la in range(3) for p in range(2) for f in range(2)]
    assert [*zip(sweep["layer"], sweep["part"], sweep["fold"], strict=True)] == expected
    assert list(sweep.columns) == [
        *("layer", "part", "fold", "score", "score_chance", "fit_time", "score_time")
    ]


def test_the_layer_that_holds_the_label_scores_best_and_others_like_chance() -> None:
    sweep = layer_sweep(PROBE, X, Y, scoring="roc_auc")
    means = sweep.groupby(["layer", "part"])["roc_auc"].mean()
    assert means.idxmax() == (1, 0)
    assert means[1, 0] > 0.9
    assert (means.drop((1, 0)) < 0.7).all()


def test_all_layers_are_scored_on_the_same_folds_even_if_those_are_random() -> None:
    same = np.repeat(X[:, :1], 3, axis=1)
    sweep = layer_sweep(PROBE, same, Y, cv=StratifiedKFold(3, shuffle=True))
    assert (sweep.groupby(["part", "fold"])["score"].nunique() == 1).all()


def test_chosen_layers_and_parts_keep_their_numbers() -> None:
    three_parts = np.repeat(X[:, :, :1], 3, axis=2)
    sweep = layer_sweep(PROBE, three_parts, Y, layers=[2, -2], parts=["mlp"], cv=2)
    assert sweep["layer"].unique().tolist() == [2, 1]
    assert sweep["part"].unique().tolist() == ["mlp"]


def test_three_axes_are_samples_layers_and_units() -> None:
    flat = layer_sweep(PROBE, X[:, :, 0], Y, cv=2)
    full = layer_sweep(PROBE, X[:, :, :1], Y, cv=2)
    assert_allclose(flat["score"], full["score"])


def test_texts_are_read_once_and_layers_go_by_the_models_numbers() -> None:
    CountingEmbedder.read.clear()
    sweep = layer_sweep(PROBE, TEXTS, ODD, embedder=CountingEmbedder(), cv=3)
    assert CountingEmbedder.read == [24]
    assert sweep["layer"].unique().tolist() == [5, 9]
    assert sweep["part"].unique().tolist() == ["mlp"]


def test_texts_go_through_a_language_model(llama: str) -> None:
    embedder = HFEmbeddingTransformer(
        llama, layers=[0, -1], parts=("mlp", "rs"), device="cpu"
    )
    texts = pd.Series(TEXTS)
    sweep = layer_sweep(PROBE, texts, ODD, embedder=embedder, cv=2)
    expected = layer_sweep(PROBE, embedder.fit_transform(texts), ODD, cv=2)
    assert_allclose(sweep["score"], expected["score"])
    assert sweep["layer"].unique().tolist() == [0, 2]
    assert sweep["part"].unique().tolist() == ["mlp", "rs"]


def weigh(estimator: object, X: np.ndarray, y: np.ndarray) -> dict[str, float]:
    return {"weight": np.abs(estimator.coef_).mean()}


def test_a_score_that_a_constant_has_not_has_no_chance_level() -> None:
    sweep = layer_sweep(PROBE, X, Y, cv=2, scoring=weigh)
    assert (sweep["weight"] > 0).all()
    assert sweep["weight_chance"].isna().all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"y": ODD[:5]},
        {"cv": GroupKFold(3)},  # without groups
        {"cv": 25},
        {"scoring": "rocauc"},
    ],
)
def test_no_text_is_read_where_the_rest_is_wrong(wrong: dict[str, object]) -> None:
    CountingEmbedder.read.clear()
    given = {"estimator": PROBE, "X": TEXTS, "y": ODD, "embedder": CountingEmbedder()}
    with pytest.raises(ValueError):
        layer_sweep(**{**given, **wrong})
    assert CountingEmbedder.read == []


def test_token_activations_are_refused_before_they_are_read() -> None:
    CountingEmbedder.read.clear()
    embedder = CountingEmbedder()
    embedder.pooling = None
    with pytest.raises(ValueError, match=r"every token.*'embedder' a 'pooling'"):
        layer_sweep(PROBE, TEXTS, ODD, embedder=embedder)
    assert CountingEmbedder.read == []
    tokens = np.empty(len(ODD), dtype=object)
    tokens[:] = [np.ones((2, 3, 1, 4))] * len(ODD)
    with pytest.raises(ValueError, match=r"every token.*'embedder' a 'pooling'"):
        layer_sweep(PROBE, tokens, ODD)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": [7]}, r"'layers' parameter .* positions in \[0, 3\)"),
        ({"parts": ["rs"]}, r"'parts' parameter"),
        ({"y": Y[:5]}, "'y' parameter.* for each of the 120 samples"),
        ({"X": X[:, :, :, None]}, "3 or 4 axes"),
        ({"X": X[:, 0, 0]}, r"'X' parameter of layer_sweep .*float32 of shape"),
        ({"X": ["Lima"] * len(Y)}, r"texts with an 'embedder'\. Got <U4"),
        ({"X": [], "y": []}, r"3 or 4 axes.*shape \(0,\)"),
    ],
)
def test_bad_input_is_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layer_sweep(**{"estimator": PROBE, "X": X, "y": Y, **arguments})


def test_a_bar_changes_no_score(capsys: pytest.CaptureFixture[str]) -> None:
    times = ["fit_time", "score_time"]
    quiet = layer_sweep(PROBE, X, Y, cv=2).drop(columns=times)
    shown = layer_sweep(PROBE, X, Y, cv=2, verbose=True).drop(columns=times)
    pd.testing.assert_frame_equal(shown, quiet)
    assert capsys.readouterr() == ("", "")


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
