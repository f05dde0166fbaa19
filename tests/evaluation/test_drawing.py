from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from plug_sklearn.evaluation._drawing import (
    LINES,
    add_legend,
    check_axes,
    make_axes,
    mark_point,
    name_score,
    style_line,
)


def test_axes_that_are_given_are_used(figure: Figure) -> None:
    axes = figure.subplots(2)
    assert make_axes(axes, 2, "Display.plot") == list(axes)


def test_axes_without_a_place_in_a_grid_cannot_be_divided(figure: Figure) -> None:
    axes = figure.add_axes((0, 0, 1, 1))
    with pytest.raises(
        ValueError, match=r"'ax' parameter of Display\.plot .* of a grid"
    ):
        make_axes(axes, 2, "Display.plot")


@pytest.mark.parametrize("n_rows", [1, 2])
def test_what_is_no_axes_cannot_be_drawn_on(n_rows: int, figure: Figure) -> None:
    for wrong in ("axes", figure, [1, 2][:n_rows], []):
        with pytest.raises(ValueError, match=r"'ax' parameter of Display\.plot .* Got"):
            check_axes(wrong, n_rows, "Display.plot")


@pytest.mark.parametrize("x", [0, 5, 10])
def test_what_marks_a_point_stays_within_the_axes(x: int, figure: Figure) -> None:
    axes = figure.subplots()
    axes.plot([0, 10], [0, 0])
    text = mark_point(axes, x, 0, "a fairly long mark", "k")
    figure.draw_without_rendering()
    box, inside = text.get_window_extent(), axes.get_window_extent()
    assert inside.x0 <= box.x0
    assert box.x1 <= inside.x1


def test_a_legend_with_room_is_within_the_axes(figure: Figure) -> None:
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], label="a line")
    add_legend(axes)
    figure.draw_without_rendering()
    box, inside = axes.get_legend().get_window_extent(), axes.get_window_extent()
    assert inside.y0 <= box.y0 < box.y1 <= inside.y1


def test_a_legend_without_room_is_below_the_axes_and_their_label(
    figure: Figure,
) -> None:
    axes = figure.subplots()
    for number in range(12):
        axes.plot([0, 1], [number, number], label=f"a line with the number {number}")
    axes.set(xlabel="a label")
    add_legend(axes)
    figure.draw_without_rendering()
    box, label = axes.get_legend().get_window_extent(), axes.xaxis.label
    assert figure.bbox.y0 <= box.y0
    assert box.y1 <= label.get_window_extent().y0


def test_a_legend_lists_what_it_is_given(figure: Figure) -> None:
    axes = figure.subplots()
    first, _ = axes.plot([0, 1], [0, 1], [0, 1], [1, 0], label="a line")
    add_legend(axes, [first])
    assert len(axes.get_legend().get_texts()) == 1


#: Linear RGB → what an eye without red, and one without green cones, is left with:
#: Viénot, Brettel and Mollon, "Digital video colourmaps for checking the legibility of
#: displays by dichromats", 1999, equations 6 and 7.
WITHOUT_CONES = {
    "red": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
    "green": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
}


@pytest.mark.parametrize("cones", WITHOUT_CONES)
def test_colours_differ_to_the_colour_blind(cones: str) -> None:
    linear = [np.array(to_rgb(line["color"])) ** 2.2 for line in LINES]
    seen = [np.array(WITHOUT_CONES[cones]) @ color for color in linear]
    for one, other in combinations(seen, 2):
        assert np.abs(one - other).max() > 0.05


def test_no_two_lines_look_alike() -> None:
    styles = [style_line(number) for number in range(25)]
    looks = {(s["color"], str(s["linestyle"]), s["marker"]) for s in styles}
    assert len(looks) == 25


def test_the_first_lines_differ_in_more_than_colour() -> None:
    assert len({str(line["linestyle"]) for line in LINES}) == len(LINES)
    assert len({line["marker"] for line in LINES}) == len(LINES)


@pytest.mark.parametrize(
    ("score", "label"),
    [
        ("roc_auc", "ROC AUC"),
        ("roc_auc_ovr", "ROC AUC OvR"),
        ("neg_brier_score", "Negative Brier score"),
        ("accuracy", "Accuracy"),
    ],
)
def test_scores_go_by_names_that_people_use(score: str, label: str) -> None:
    assert name_score(score) == label
