"""Show texts with their tokens coloured by probability, as HTML or as a picture."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self
from unicodedata import category, east_asian_width

import numpy as np
import pandas as pd

from plug_sklearn._fonts import list_token_fonts, replace_missing_letters
from plug_sklearn.evaluation._drawing import (
    BLUE,
    VERMILION,
    WIDTH,
    check_axes,
    make_axes,
    write_name,
)
from plug_sklearn.evaluation._folds import check_table
from plug_sklearn.evaluation._token_scores import score_tokens

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.typing import ColorType

COLUMNS = ("text", "position", "token")
PREFIX = "proba_"
#: Strength of the colour at a probability of 0 or 1: low enough to read the text on it.
STRONGEST = 0.6
#: Font size of a picture, in points.
FONT_SIZE = 9.0
#: Height of a line in a picture, and width of a letter, relative to the font size.
LINE_HEIGHT, LETTER_WIDTH = 1.7, 0.602
#: Signs for characters without an image. A line still breaks after the sign of a break.
_SIGNS = {"\n": "↵\n", "\r": "␍", "\t": "⇥"}


class TokenScoresDisplay:
    """Texts whose tokens are coloured by the probability of a class.

    Notebooks show the display as HTML, and :meth:`plot` draws a picture. Probabilities
    above chance are vermilion, and those below are blue. Chance is one divided by the
    number of classes.

    Parameters
    ----------
    scores : DataFrame
        What :func:`score_tokens` returns.
    label : str, default=None
        The class whose probability is shown, as it is named in the columns of
        ``scores``. None: the second of two classes. With more than two classes, a label
        is required.

    Attributes
    ----------
    scores, label
        As given; ``label`` is the class that is shown.
    ax_ : Axes
        The axes; only after :meth:`plot`.
    figure_ : Figure
        Its figure.

    See Also
    --------
    score_tokens : Computes the table of probabilities.

    Examples
    --------
    >>> import pandas as pd
    >>> from plug_sklearn import TokenScoresDisplay
    >>> scores = pd.DataFrame(
    ...     {
    ...         "text": [0, 0],
    ...         "position": [0, 1],
    ...         "token": ["Hello", " <b>"],
    ...         "proba_no": [0.9, 0.2],
    ...         "proba_yes": [0.1, 0.8],
    ...     }
    ... )
    >>> display = TokenScoresDisplay(scores)
    >>> display.label
    'yes'
    >>> "&lt;b&gt;" in display.to_html()
    True
    """

    def __init__(self, scores: pd.DataFrame, *, label: str | None = None) -> None:
        owner = type(self).__name__
        check_table(scores, COLUMNS, "scores", owner, "score_tokens")
        columns = map(str, scores.columns)
        labels = [name[len(PREFIX) :] for name in columns if name.startswith(PREFIX)]
        if not labels:
            raise ValueError(
                f"The 'scores' parameter of {owner} must have a column for each class, "
                f"such as '{PREFIX}1'. Got the columns {list(scores.columns)} instead."
            )
        if label is None and len(labels) == 2:
            label = labels[1]
        if str(label) not in labels:
            raise ValueError(
                f"The 'label' parameter of {owner} must be one of {labels}. "
                f"Got {label!r} instead."
            )
        _check_values(scores, PREFIX + str(label), owner)
        self.scores = scores
        self.label = str(label)
        self._chance = 1 / max(2, len(labels))

    @classmethod
    def from_estimator(
        cls,
        pipeline: Any,  # noqa: ANN401 - checked by score_tokens
        X: Any,  # noqa: ANN401 - texts in any container
        *,
        running: bool = False,
        label: str | None = None,
    ) -> Self:
        """Score the tokens of some texts with a fitted pipeline.

        Parameters
        ----------
        pipeline : Pipeline
            The fitted pipeline, as in :func:`score_tokens`.
        X : list, tuple, 1-D array, Series, datasets column, pyarrow array or \
one-column frame
            Strings or conversations.
        running : bool, default=False
            As in :func:`score_tokens`.
        label : str, default=None
            As in :class:`TokenScoresDisplay`.

        Returns
        -------
        TokenScoresDisplay
            The display, not drawn yet: a notebook shows it as HTML.

        Raises
        ------
        ValueError
            If a parameter is invalid.
        """
        return cls(score_tokens(pipeline, X, running=running), label=label)

    def to_html(self) -> str:
        """Write the texts as a piece of HTML.

        The HTML needs no JavaScript and suits dark and light pages. Texts are escaped,
        so that markup in them is shown and not interpreted. Hovering over a token shows
        its probability.

        Returns
        -------
        str
            One ``div`` element.
        """
        paragraphs = [
            "<p style='margin:0.4em 0;white-space:pre-wrap;"
            "overflow-wrap:anywhere;line-height:1.7'>"
            f"{''.join(_mark_token(*token, self._chance) for token in tokens)}</p>"
            for tokens in self._list_texts()
        ]
        scale = "".join(
            _mark_token(f" {value:.2f} ", value, self._chance)
            for value in (0, self._chance / 2, self._chance, (1 + self._chance) / 2, 1)
        )
        legend = (
            "<p style='margin:0.4em 0;font-size:85%;white-space:pre-wrap'>"
            f"Probability of {html.escape(self.label)}: {scale}</p>"
        )
        return f"<div>{legend}{''.join(paragraphs)}</div>"

    def _repr_html_(self) -> str:
        return self.to_html()

    def plot(self, *, ax: Axes | None = None) -> Self:
        """Draw the texts.

        Parameters
        ----------
        ax : Axes, default=None
            Where to draw; lines are as wide as the axes. None: a new figure with the
            height that the texts need.

        Returns
        -------
        TokenScoresDisplay
            This display.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        owner = f"{type(self).__name__}.plot"
        check_axes(ax, 1, owner)
        from matplotlib.cm import ScalarMappable

        inches = WIDTH
        if ax is not None:
            inches = ax.get_position().width * ax.figure.get_figwidth()  # type: ignore[union-attr]  # axes that are drawn on have a figure
        n_columns = max(10, int(inches * 72 / (FONT_SIZE * LETTER_WIDTH)) - 3)
        lines: list[list[tuple[str, float]]] = []
        for text in self._list_texts():
            # An empty line between texts.
            lines += [[]] * bool(lines) + list(_wrap(text, n_columns))
        height = (len(lines) + 4) * FONT_SIZE * LINE_HEIGHT / 72
        (axes,) = make_axes(ax, 1, owner, height=height)
        axes.set(xlim=(0, n_columns), ylim=(len(lines), 0))
        axes.set_axis_off()
        colors = ScalarMappable(*_make_colors(self._chance))
        for number, line in enumerate(lines):
            column = 0
            for token, probability in line:
                (color,) = colors.to_rgba(np.array([probability])).tolist()
                self._draw_token(axes, number, column, token, color)
                column += _count_columns(token)
        self.figure_ = axes.figure
        scale = self.figure_.colorbar(
            colors, ax=axes, location="bottom", aspect=40, shrink=0.6, pad=0.02
        )
        scale.outline.set_visible(False)
        scale.set_ticks([0, self._chance, 1])
        scale.ax.tick_params(labelsize=FONT_SIZE, length=0)
        label = f"Probability of {write_name(self.label)}"
        scale.set_label(label, fontsize=FONT_SIZE)
        self.ax_ = axes
        return self

    def _draw_token(
        self, axes: Axes, line: int, column: int, token: str, color: ColorType
    ) -> None:
        from matplotlib.patches import Rectangle

        width = _count_columns(token)
        place = (column, line + 0.08)
        axes.add_patch(Rectangle(place, width, 0.84, facecolor=color, linewidth=0))
        axes.text(
            column,
            line + 0.5,
            replace_missing_letters(token),
            fontsize=FONT_SIZE,
            family=list_token_fonts(),
            color="black",
            verticalalignment="center_baseline",
            parse_math=False,
        )

    def _list_texts(self) -> Iterator[list[tuple[str, float]]]:
        """List the tokens of each text with the probabilities of the class."""
        shown = self.scores[["text", "token", PREFIX + self.label]]
        for _, own in shown.groupby("text", sort=False):
            yield list(
                zip(own["token"], own[PREFIX + self.label].astype(float), strict=True)
            )


def _check_values(scores: pd.DataFrame, column: str, owner: str) -> None:
    """Check that a table holds tokens, and probabilities of the class to show."""
    expected = f"The 'scores' parameter of {owner} must hold"
    if not len(scores):
        raise ValueError(f"{expected} at least one token. Got none.")
    other = [token for token in scores["token"] if not isinstance(token, str)]
    if other:
        raise ValueError(f"{expected} tokens that are strings. Got {other[0]!r}.")
    probabilities = pd.to_numeric(scores[column], errors="coerce")
    # Means of probabilities may exceed 1 by a rounding error.
    wrong = scores[column][~probabilities.between(-1e-6, 1 + 1e-6)]
    if len(wrong):
        raise ValueError(
            f"{expected} probabilities in [0, 1]. Got {wrong.iloc[0]!r} in the column "
            f"{column!r}."
        )


def _mark_token(token: str, probability: float, chance: float) -> str:
    """Write a token as a piece of HTML on the colour of its probability."""
    if probability >= chance:
        color, strength = VERMILION, (probability - chance) / (1 - chance)
    else:
        color, strength = BLUE, (chance - probability) / chance
    red, green, blue = (int(color[place : place + 2], 16) for place in (1, 3, 5))
    # A translucent background keeps the text readable on dark pages too.
    ground = f"rgba({red},{green},{blue},{STRONGEST * strength:.2f})"
    return (
        f"<span title='{probability:.3f}' style='background:{ground};"
        f"border-radius:2px'>{html.escape(_show_controls(token))}</span>"
    )


def _show_controls(token: str) -> str:
    """Replace characters that are invisible or would reverse the text."""
    # Cc are control characters, Cf marks such as those that turn the direction.
    return "".join(
        "\N{REPLACEMENT CHARACTER}"
        if letter not in _SIGNS and category(letter) in ("Cc", "Cf")
        else _SIGNS.get(letter, letter)
        for letter in token
    )


def _make_colors(chance: float) -> tuple[Normalize, LinearSegmentedColormap]:
    """Make the colours of a picture: from blue over white, at chance, to vermilion."""
    from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm, to_rgb

    ends = [
        tuple(1 - STRONGEST * (1 - value) for value in to_rgb(color))
        for color in (BLUE, VERMILION)
    ]
    colors = LinearSegmentedColormap.from_list(
        "probability", [ends[0], (1.0, 1.0, 1.0), ends[1]]
    )
    return TwoSlopeNorm(chance, 0, 1), colors


def _wrap(
    tokens: list[tuple[str, float]], n_columns: int
) -> Iterator[list[tuple[str, float]]]:
    """Break a text into lines: at line breaks, and before a token that does not fit.

    A token that is longer than a line is split at the end of the line.
    """
    line: list[tuple[str, float]] = []
    used = 0
    for token, probability in tokens:
        for piece in _show_controls(token).splitlines(keepends=True) or [""]:
            shown = piece.rstrip("\n")
            while shown:
                if used and used + _count_columns(shown) > n_columns:
                    yield line
                    line, used = [], 0
                line.append((shown[:n_columns], probability))
                used += _count_columns(shown[:n_columns])
                shown = shown[n_columns:]
            if piece.endswith("\n"):
                yield line
                line, used = [], 0
    yield line


def _count_columns(token: str) -> int:
    """Count the columns of a token; an East Asian letter is two columns wide."""
    return sum(
        0 if category(letter) == "Mn" else 1 + (east_asian_width(letter) in "WF")
        for letter in token
    )
