"""What a picture shows, as a reader would measure it."""

from itertools import combinations

from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox


def find_overlapping_texts(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts that overlap in the figure, drawn as it would be saved."""
    figure.draw_without_rendering()
    out_of_view = [
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        for label in (tick.label1, tick.label2)
        if not _is_between(tick.get_loc(), *axis.get_view_interval())
    ]
    boxes = [
        (text.get_text(), text.get_window_extent())
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text() and text not in out_of_view
    ]
    return [
        (one, other)
        for (one, box), (other, box_) in combinations(boxes, 2)
        if Bbox.intersection(box, box_) and box.width and box_.width
    ]


def _is_between(value: float, one: float, other: float) -> bool:
    return min(one, other) <= value <= max(one, other)
