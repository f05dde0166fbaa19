"""What the displays share: axes, legends, marks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from plug_sklearn._extras import require_extra

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation
    from matplotlib.typing import ColorType

#: Inches; at matplotlib's 100 dots an inch, 600 pixels wide.
WIDTH = 6.0


def check_axes(
    ax: Any,  # noqa: ANN401 - Axes, a sequence of them, or None
    n_rows: int,
    caller: str,
) -> list[Axes]:
    """Make sure that a picture can be drawn, before anything is computed for it.

    Parameters
    ----------
    ax : Axes, sequence of Axes or None
        What to draw on; one of a grid can be divided where more are needed.
    n_rows : int
        How many are needed.
    caller : str
        What draws, for messages.

    Returns
    -------
    list of Axes
        Those given: none, one or ``n_rows``.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If what is given cannot be drawn on.
    """
    require_extra("plots", caller)
    if ax is None:
        return []
    from matplotlib.axes import Axes

    given = list(np.atleast_1d(np.asarray(ax, dtype=object)).ravel())
    is_drawable = all(isinstance(one, Axes) for one in given)
    if is_drawable and len(given) == n_rows:
        return given
    if is_drawable and len(given) == 1 and given[0].get_subplotspec() is not None:
        return given
    several = "" if n_rows == 1 else f" of a grid, to be divided, or {n_rows} Axes"
    raise ValueError(
        f"The 'ax' parameter of {caller} must be one Axes{several}. Got {ax!r} instead."
    )


def make_axes(
    ax: Any,  # noqa: ANN401 - Axes, a sequence of them, or None
    n_rows: int,
    caller: str,
    height: float = 4.0,
) -> list[Axes]:
    """Make the axes to draw on, one above the other, or take those given.

    Parameters
    ----------
    ax, n_rows, caller : see below
        As in :func:`check_axes`; None: a new figure.
    height : float, default=4.0
        Height of a new figure in inches.

    Returns
    -------
    list of Axes
        ``n_rows`` of them.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If what is given cannot be drawn on.
    """
    given = check_axes(ax, n_rows, caller)
    if not given:
        import matplotlib.pyplot as plt

        _, axes = plt.subplots(
            n_rows,
            squeeze=False,
            sharex=True,
            figsize=(WIDTH, height),
            layout="constrained",
        )
        return list(axes[:, 0])
    return given if len(given) == n_rows else _divide_axes(given[0], n_rows)


def _divide_axes(ax: Axes, n_rows: int) -> list[Axes]:
    ax.set_axis_off()
    figure = ax.get_figure()
    rows: list[Axes] = []
    grid = ax.get_subplotspec().subgridspec(n_rows, 1)  # type: ignore[union-attr]  # it is of a grid, which has been checked
    for row in range(n_rows):
        first = rows[0] if rows else None
        if rows:
            rows[-1].tick_params(labelbottom=False)
        rows.append(figure.add_subplot(grid[row, 0], sharex=first))  # type: ignore[union-attr]  # an Axes of a grid has a figure
    return rows


def finish_axes(ax: Axes) -> None:
    """Leave out the frame's upper and right sides, which say nothing.

    Parameters
    ----------
    ax : Axes
        What is drawn.
    """
    ax.spines[["top", "right"]].set_visible(False)


def add_legend(ax: Axes, handles: list[Any] | None = None) -> None:
    """Add a legend where there is room: below the axes, if they have none.

    Parameters
    ----------
    ax : Axes
        With all lines and texts drawn.
    handles : list of Artist, default=None
        What to list; None: all that has a label.
    """
    legend = ax.legend(handles=handles, frameon=False)
    figure = ax.get_figure()
    if figure is None:
        return
    figure.canvas.figure.draw_without_rendering()
    box = legend.get_window_extent()
    covers_line = any(
        line.get_transform()
        .transform_path(line.get_path())
        .intersects_bbox(box, filled=False)
        for line in ax.lines
    )
    covers_text = any(text.get_window_extent().overlaps(box) for text in ax.texts)
    if covers_line or covers_text:
        from matplotlib.transforms import ScaledTranslation

        n_fitting = int(ax.get_window_extent().width // box.width)
        below_label = ScaledTranslation(0, -0.45, figure.dpi_scale_trans)
        ax.legend(
            handles=handles,
            frameon=False,
            ncols=max(1, n_fitting),
            loc="upper center",
            bbox_to_anchor=(0.5, 0),
            bbox_transform=ax.transAxes + below_label,
        )


def mark_point(ax: Axes, x: float, y: float, text: str, color: ColorType) -> Annotation:
    """Mark a point with a ring, and write beside it where there is room.

    Parameters
    ----------
    ax : Axes
        With all lines drawn.
    x, y : float
        The point.
    text : str
        What to write.
    color : color
        Colour of ring and text.

    Returns
    -------
    Annotation
        The text.
    """
    ax.plot(x, y, "o", markersize=11, fillstyle="none", markeredgewidth=2, color=color)
    left, right = ax.get_xlim()
    place = (x - left) / (right - left)
    align = "left" if place < 0.25 else "right" if place > 0.75 else "center"
    return ax.annotate(
        text,
        (x, y),
        xytext=(0, 12),
        textcoords="offset points",
        ha=align,
        va="bottom",
        color=color,
        fontweight="bold",
    )
