"""Shared by the displays: base classes, axes, legends, line styles and names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from plug_sklearn._fonts import replace_missing_letters
from plug_sklearn._packages import require_extra
from plug_sklearn.evaluation._folds import check_score, check_table, find_score
from plug_sklearn.evaluation._inputs import describe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.typing import ColorType

#: Width of a new figure in inches: 600 pixels at matplotlib's 100 dots an inch.
WIDTH = 6.0
#: Inches that the label of a tick takes, with room beside it.
LABEL_WIDTH = 0.42

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

#: Words in the names of scorers that are not written in lower case.
WORDS = {
    "auc": "AUC",
    "brier": "Brier",
    "ovo": "OvO",
    "ovr": "OvR",
    "r2": "R²",
    "roc": "ROC",
}


class Display:
    """Base class of the plots: their number, and the height of a new figure."""

    _n_plots = 1
    _height = 4.0

    def plot(self, ax: Axes | Sequence[Axes] | None = None) -> Self:
        """Draw the plot.

        Parameters
        ----------
        ax : Axes or sequence of Axes, default=None
            Where to draw: an Axes for each entry of ``ax_``, or one to be divided;
            None: a new figure.

        Returns
        -------
        Self
            This display.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        owner = f"{type(self).__name__}.plot"
        axes = make_axes(ax, self._n_plots, owner, height=self._height)
        self.figure_ = axes[0].get_figure()
        for one in axes:
            finish_axes(one)
        self._draw(axes)
        return self

    def _draw(self, axes: list[Axes]) -> None:
        """Draw on the axes, one below the other."""
        raise NotImplementedError


class ScoresDisplay(Display):
    """Base class of the plots of scores by fold.

    A subclass names the function that computes its table, and the columns that its
    table must have.
    """

    _compute: ClassVar[Callable[..., pd.DataFrame]]
    _columns: ClassVar[tuple[str, ...]]

    def __init__(self, table: pd.DataFrame, *, score: str | None = None) -> None:
        owner = type(self).__name__
        # A subclass names its parameter after what its table holds.
        name = next(iter(signature(type(self)).parameters))
        check_table(table, self._columns, name, owner, self._compute.__name__)
        self.score = find_score(table, score, name, owner)

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: Any,  # noqa: ANN401 - whatever the function that computes the scores takes
        y: ArrayLike,
        *,
        score: str | None = None,
        ax: Axes | Sequence[Axes] | None = None,
        **options: Any,  # noqa: ANN401 - arguments of the function
    ) -> Self:
        """Compute the scores, and draw them.

        Parameters
        ----------
        estimator, X, y : see below
            As in the function that computes the scores: :func:`layer_sweep` or
            :func:`capacity_curve`.
        score : str, default=None
            The score to draw, if there are several; None: the first.
        ax : Axes or sequence of Axes, default=None
            Where to draw, as in :meth:`plot`.
        **options : dict
            Further arguments of that function, such as ``cv`` and ``scoring``.

        Returns
        -------
        Self
            The display, drawn.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If a parameter is invalid.
        """
        owner = f"{cls.__name__}.from_estimator"
        check_axes(ax, cls._n_plots, owner)
        check_score(options.get("scoring"), score, owner)
        table = cls._compute(estimator, X, y, **options)
        return cls(table, score=score).plot(ax=ax)


def check_axes(
    ax: Any,  # noqa: ANN401 - Axes, a sequence of them, or None
    n_rows: int,
    owner: str,
) -> list[Axes]:
    """Check that ``n_rows`` plots can be drawn, before anything is computed for them.

    One Axes of a grid can be divided into several rows. Returns the Axes that are
    given: none, one or ``n_rows``.
    """
    require_extra("plots", owner)
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
        f"The 'ax' parameter of {owner} must be one Axes{several}. Got {describe(ax)} "
        "instead."
    )


def make_axes(
    ax: Any,  # noqa: ANN401 - Axes, a sequence of them, or None
    n_rows: int,
    owner: str,
    height: float = 4.0,
) -> list[Axes]:
    """Return ``n_rows`` Axes, one above the other: those given, or of a new figure.

    ``height`` is that of a new figure, in inches.
    """
    given = check_axes(ax, n_rows, owner)
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
    grid = ax.get_subplotspec().subgridspec(n_rows, 1)  # type: ignore[union-attr]  # check_axes has checked that it is of a grid
    for row in range(n_rows):
        first = rows[0] if rows else None
        if rows:
            rows[-1].tick_params(labelbottom=False)
        rows.append(figure.add_subplot(grid[row, 0], sharex=first))  # type: ignore[union-attr]  # an Axes of a grid has a figure
    return rows


def make_figure(height: float) -> Figure:
    """Make a figure that pyplot does not know, so that no window ever shows it."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), dpi=100, layout="constrained")


def finish_axes(ax: Axes) -> None:
    """Remove the upper and right sides of the frame."""
    ax.spines[["top", "right"]].set_visible(False)


def add_legend(ax: Axes, handles: list[Any] | None = None) -> None:
    """Add a legend inside the axes, or below them if it would cover a line or a text.

    Call it after all lines and texts are drawn. ``handles`` are the artists to list;
    None lists all that have a label.
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


def label_ticks(ax: Axes, values: NDArray[np.floating]) -> None:
    """Label values on a logarithmic x axis, as many as there is room for."""
    extent = ax.get_window_extent()
    inches = extent.transformed(ax.figure.dpi_scale_trans.inverted()).width
    room = LABEL_WIDTH / inches * np.ptp(np.log(values))
    labels, last = [], -np.inf
    for value in values:
        is_far = np.log(value) - last >= room
        labels.append(f"{value:.3g}" if is_far else "")
        last = np.log(value) if is_far else last
    ax.set_xticks(values, labels)
    ax.minorticks_off()


def mark_point(ax: Axes, x: float, y: float, text: str, color: ColorType) -> Annotation:
    """Draw a ring around a point and a text above it, after all lines are drawn."""
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


def style_line(number: int) -> dict[str, Any]:
    """Return arguments of matplotlib's ``plot`` for the line of a number, from 0.

    Lines of different numbers look different.
    """
    n_styles = len(LINES)
    style = LINES[number % n_styles]
    marker = LINES[(number + number // n_styles) % n_styles]["marker"]
    return {**style, "marker": marker}


def name_score(score: str) -> str:
    """Turn the name of a scorer into a label, such as ``"ROC AUC"``."""
    words = score.split("_")
    if words[0] == "neg":
        words[0] = "negative"
    label = " ".join(WORDS.get(word, word) for word in words)
    return label[:1].upper() + label[1:]


def write_name(name: object, most: int = 40) -> str:
    """Write a name that a user has chosen, so that it can be drawn as it is.

    A dollar begins no formula, an underscore keeps no line out of a legend, letters
    that no font has are replaced, and a name longer than ``most`` loses its middle.
    """
    text = str(name)
    if len(text) > most:
        kept = most - 1
        text = f"{text[: -(-kept // 2)]}…{text[-(kept // 2) :]}"
    text = "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
    text = replace_missing_letters(text).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def write_folds(n_folds: int) -> str:
    """Write a number of folds, such as ``"5 folds"``."""
    return f"{n_folds} folds" if n_folds > 1 else "1 fold"
