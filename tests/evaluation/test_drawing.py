import pytest
from matplotlib.figure import Figure

from plug_sklearn.evaluation._drawing import (
    add_legend,
    check_axes,
    make_axes,
    mark_point,
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
