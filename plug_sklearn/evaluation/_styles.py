"""Colours and styles of lines, which readers can tell apart."""

from typing import Any

#: From the palette of Okabe and Ito, which colour-blind readers can tell apart.
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, GREY = "#E69F00", "#595959"
#: Lines that differ in more than colour.
LINES: tuple[dict[str, Any], ...] = (
    {"color": BLUE, "linestyle": "-", "marker": "o"},
    {"color": VERMILION, "linestyle": "--", "marker": "s"},
    {"color": GREEN, "linestyle": "-.", "marker": "^"},
    {"color": PURPLE, "linestyle": ":", "marker": "D"},
    {"color": ORANGE, "linestyle": (0, (5, 1)), "marker": "v"},
)


def style_line(number: int) -> dict[str, Any]:
    """Choose how a line looks, such that it can be told from those before it.

    Parameters
    ----------
    number : int
        Of the line, from 0.

    Returns
    -------
    dict
        Arguments of matplotlib's ``plot``.
    """
    n_styles = len(LINES)
    style = LINES[number % n_styles]
    marker = LINES[(number + number // n_styles) % n_styles]["marker"]
    return {**style, "marker": marker}
