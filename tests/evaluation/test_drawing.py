from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from plug_sklearn import (
    CapacityCurveDisplay,
    ControlsDisplay,
    LayerSweepDisplay,
    ReliabilityDisplay,
    TokenScoresDisplay,
    TrainingCurveDisplay,
    TransferDisplay,
)

CURVE = pd.DataFrame(
    {
        "target_ratio": [1.0, 2.0],
        "n_train": [50, 50],
        "n_parameters": [50, 90],
        "fold": [0, 0],
        "roc_auc": [0.5, 0.6],
        "fit_time": [0.0, 0.0],
    }
)


def draw_parts(
    ax: Axes, n_parts: int, score: str = "accuracy", n_layers: int = 2
) -> LayerSweepDisplay:
    """Draw a sweep in which each part has a horizontal line of its own."""
    cells = [(layer, part) for part in range(n_parts) for layer in range(n_layers)]
    sweep = pd.DataFrame(cells, columns=["layer", "part"])
    sweep["fold"], sweep[score] = 0, sweep["part"] / n_parts
    sweep["fit_time"] = 0.0
    sweep["part"] = "a part with the number " + sweep["part"].astype(str)
    return LayerSweepDisplay(sweep).plot(ax=ax)


def list_lines(n_parts: int) -> list[Line2D]:
    return list(draw_parts(Figure().subplots(), n_parts).lines_.values())


def test_axes_that_are_given_are_used(figure: Figure) -> None:
    axes = figure.subplots(2)
    assert CapacityCurveDisplay(CURVE).plot(ax=axes).ax_ == list(axes)


def test_axes_without_a_place_in_a_grid_cannot_be_divided(figure: Figure) -> None:
    axes = figure.add_axes((0, 0, 1, 1))
    with pytest.raises(
        ValueError, match=r"'ax' parameter of .*Display\.plot .* a grid"
    ):
        CapacityCurveDisplay(CURVE).plot(ax=axes)


def test_what_is_no_axes_cannot_be_drawn_on(figure: Figure) -> None:
    for wrong in ("axes", figure, [1, 2], [1], []):
        with pytest.raises(ValueError, match=r"'ax' parameter of Layer.*\.plot .* Got"):
            draw_parts(wrong, 1)
        with pytest.raises(ValueError, match=r"'ax' parameter of Capac.*\.plot .* Got"):
            CapacityCurveDisplay(CURVE).plot(ax=wrong)


@pytest.mark.parametrize("best", [0, 5, 10])
def test_what_marks_a_point_stays_within_the_axes(best: int, figure: Figure) -> None:
    sweep = pd.DataFrame({"layer": range(11), "part": "rs", "fold": 0, "r2": 0.0})
    sweep["fit_time"] = 0.0
    sweep.loc[best, "r2"] = 0.5
    display = LayerSweepDisplay(sweep).plot(ax=figure.subplots())
    figure.draw_without_rendering()
    (text,) = display.ax_.texts
    box, inside = text.get_window_extent(), display.ax_.get_window_extent()
    assert inside.x0 <= box.x0
    assert box.x1 <= inside.x1


def test_a_legend_with_room_is_within_the_axes(figure: Figure) -> None:
    axes = draw_parts(figure.subplots(), 1).ax_
    figure.draw_without_rendering()
    box, inside = axes.get_legend().get_window_extent(), axes.get_window_extent()
    assert inside.y0 <= box.y0 < box.y1 <= inside.y1


def test_a_legend_without_room_is_below_the_axes_and_their_label(
    figure: Figure,
) -> None:
    axes = draw_parts(figure.subplots(), 12).ax_
    figure.draw_without_rendering()
    box, label = axes.get_legend().get_window_extent(), axes.xaxis.label
    assert figure.bbox.y0 <= box.y0
    assert box.y1 <= label.get_window_extent().y0


def test_a_legend_lists_each_line_once(figure: Figure) -> None:
    # The ring around the best point is not listed.
    assert len(draw_parts(figure.subplots(), 3).ax_.get_legend().get_texts()) == 3


#: Linear RGB → what an eye without red, and one without green cones, is left with:
#: Viénot, Brettel and Mollon, "Digital video colourmaps for checking the legibility of
#: displays by dichromats", 1999, equations 6 and 7.
WITHOUT_CONES = {
    "red": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
    "green": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
}


@pytest.mark.parametrize("cones", WITHOUT_CONES)
def test_colours_differ_to_the_colour_blind(cones: str) -> None:
    linear = [np.array(to_rgb(line.get_color())) ** 2.2 for line in list_lines(5)]
    seen = [np.array(WITHOUT_CONES[cones]) @ color for color in linear]
    for one, other in combinations(seen, 2):
        assert np.abs(one - other).max() > 0.05


def describe_dashes(line: Line2D) -> str:
    return str(line._dash_pattern)


def test_no_two_lines_look_alike() -> None:
    looks = {
        (line.get_color(), describe_dashes(line), line.get_marker())
        for line in list_lines(25)
    }
    assert len(looks) == 25


def test_the_first_lines_differ_in_more_than_colour() -> None:
    lines = list_lines(5)
    assert len({describe_dashes(line) for line in lines}) == 5
    assert len({line.get_marker() for line in lines}) == 5


@pytest.mark.parametrize(
    ("score", "label"),
    [
        ("roc_auc", "ROC AUC"),
        ("roc_auc_ovr", "ROC AUC OvR"),
        ("neg_brier_score", "Negative Brier score"),
        ("accuracy", "Accuracy"),
    ],
)
def test_scores_go_by_names_that_people_use(
    score: str, label: str, figure: Figure
) -> None:
    assert draw_parts(figure.subplots(), 1, score).ax_.get_ylabel() == label


#: Names, and how a legend shows them.
NAMES = {
    "costs $5 and $6": r"costs \$5 and \$6",
    r"$\frac{": r"\$\frac{",
    "_hidden": " _hidden",
    20 * "c": 20 * "c",
    150 * "a" + 150 * "b": f"{10 * 'a'}…{9 * 'b'}",
    "\u6f22\u5b57": 2 * "\ufffd",
    "a\nb\x07": "a\ufffdb\ufffd",
}


def draw_sweep(name: str) -> Any:  # noqa: ANN401 - a display
    rows = [
        {"layer": layer, "part": part, "fold": 0, name: layer, "fit_time": 1.0}
        for layer in range(3)
        for part in (name, "mlp")
    ]
    return LayerSweepDisplay(pd.DataFrame(rows)).plot()


def draw_controls(name: str) -> Any:  # noqa: ANN401 - a display
    rows = [
        {"control": control, "fold": 0, name: 0.5, "fit_time": 1.0}
        for control in ("probe", name)
    ]
    return ControlsDisplay(pd.DataFrame(rows)).plot()


def draw_transfer(name: str) -> Any:  # noqa: ANN401 - a display
    names = [name, f"{name}2"]
    matrix = pd.DataFrame(np.eye(2), index=names, columns=names)
    return TransferDisplay(matrix, score=name).plot()


def draw_capacity(name: str) -> Any:  # noqa: ANN401 - a display
    rows = [
        {"target_ratio": r, "n_train": 9, "n_parameters": r, "fold": 0, name: r}
        for r in (1.0, 2.0)
    ]
    return CapacityCurveDisplay(pd.DataFrame(rows).assign(fit_time=1.0)).plot()


def draw_history(name: str) -> Any:  # noqa: ANN401 - a display
    rows = {"fold": 0, "epoch": [1, 2], "train_loss": 1.0, "kept": [False, True]}
    history = pd.DataFrame({**rows, "valid_score": [0.5, 0.6]})
    return TrainingCurveDisplay(history, score_name=name).plot()


def draw_reliability(name: str) -> Any:  # noqa: ANN401 - a display
    y, labels = np.array(["no", name] * 9), ["no", name]
    return ReliabilityDisplay.from_predictions(
        y, np.linspace(0, 1, 18), labels=labels, pos_label=name, name=name
    )


def draw_tokens(name: str) -> Any:  # noqa: ANN401 - a display
    row = {"text": 0, "position": 0, "token": name, "proba_no": 0.4}
    return TokenScoresDisplay(pd.DataFrame([{**row, f"proba_{name}": 0.6}])).plot()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "draw",
    [
        draw_sweep,
        draw_controls,
        draw_transfer,
        draw_capacity,
        draw_history,
        draw_reliability,
        draw_tokens,
    ],
)
def test_displays_draw_any_name(draw: Callable[[str], Any], name: str) -> None:
    """Formulas would fail, missing letters and crowded axes would warn."""
    display = draw(name)
    display.figure_.canvas.draw()
    axes = display.figure_.axes[0]
    assert axes.get_window_extent().width > 150


@pytest.mark.parametrize("name", NAMES)
def test_lines_of_any_name_are_in_the_legend(name: str) -> None:
    shown = [text.get_text() for text in draw_sweep(name).ax_.get_legend().get_texts()]
    assert shown[:2] == [NAMES[name], "mlp"]
