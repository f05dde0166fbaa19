"""Plot an answer and the probabilities after each of its tokens."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from plug_sklearn._fonts import list_token_fonts, replace_missing_letters
from plug_sklearn._packages import require_extra
from plug_sklearn.generation._generate import generate_with_probes
from plug_sklearn.generation._predictions import ProbedText

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.random import RandomState
    from sklearn.pipeline import Pipeline

    from plug_sklearn.generation._stopping import Stop

#: From the palette of Okabe and Ito, which colour-blind readers can tell apart.
_LINES: tuple[dict[str, Any], ...] = (
    {"color": "#D55E00", "linestyle": "-", "marker": "o"},
    {"color": "#0072B2", "linestyle": "--", "marker": "s"},
    {"color": "#009E73", "linestyle": "-.", "marker": "^"},
    {"color": "#CC79A7", "linestyle": ":", "marker": "D"},
)
_GREY, _GROUND = "#595959", "#E69F00"
#: Inches: the smallest width of a new figure, its height, and the width of a token.
_WIDTH, _HEIGHT, _TOKEN = 6.0, 4.0, 0.16
#: Largest number of characters shown of a token.
_MOST_CHARACTERS = 14


class GenerationDisplay:
    """Plot of probabilities along an answer, above its tokens on a coloured background.

    Parameters
    ----------
    answer : ProbedText
        What :func:`generate_with_probes` returns for one prompt.
    stop : dict of str to float, default=None
        Thresholds to draw: a probability for each probe, by its name.

    Attributes
    ----------
    ax_ : Axes
        The axes of the plot.
    figure_ : Figure
        Its figure.
    lines_ : dict of str to Line2D
        The line of each probe.

    See Also
    --------
    generate_with_probes : Computes the answer.

    Examples
    --------
    >>> import numpy as np
    >>> from plug_sklearn import GenerationDisplay, ProbedText
    >>> answer = ProbedText(
    ...     text=" Lima, and",
    ...     token_ids=[40, 11, 312],
    ...     tokens=[" Lima", ",", " and"],
    ...     probabilities={"false": np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])},
    ...     prompt_probabilities={"false": np.array([0.6, 0.4])},
    ...     stopped_by="false",
    ...     classes={"false": ["true", "false"]},
    ... )
    >>> display = GenerationDisplay(answer, stop={"false": 0.6}).plot()
    """

    ax_: Axes
    figure_: Figure
    lines_: dict[str, Any]

    def __init__(
        self, answer: ProbedText, *, stop: Mapping[str, float] | None = None
    ) -> None:
        self.answer = answer
        self.stop = stop

    @classmethod
    def from_estimator(
        cls,
        probes: Pipeline | Mapping[str, Pipeline],
        prompt: Any,  # noqa: ANN401 - a string or a conversation
        *,
        max_new_tokens: int,
        stop: Stop | None = None,
        generation_kwargs: Mapping[str, Any] | None = None,
        random_state: int | RandomState | None = None,
        ax: Axes | None = None,
    ) -> Self:
        """Let the model write an answer to one prompt, and draw it.

        Parameters
        ----------
        probes : Pipeline or dict of str to Pipeline
            One or more fitted pipelines that read the same model, as in
            :func:`generate_with_probes`.
        prompt : str or conversation
            The prompt that the model answers.
        max_new_tokens : int
            Largest number of tokens in the answer.
        stop : dict of str to float or callable, default=None
            When to stop the answer, as in :func:`generate_with_probes`. Thresholds are
            drawn.
        generation_kwargs : dict, default=None
            Options of ``generate``.
        random_state : int, RandomState or None, default=None
            Seed of sampling.
        ax : Axes, default=None
            Where to draw; None: a new figure.

        Returns
        -------
        GenerationDisplay
            The display, drawn; the picture is ``figure_``.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        require_extra("plots", cls.__name__)
        (answer,) = generate_with_probes(
            [prompt],
            probes,
            max_new_tokens=max_new_tokens,
            stop=stop,
            generation_kwargs=generation_kwargs,
            random_state=random_state,
        )
        thresholds = stop if isinstance(stop, Mapping) else None
        return cls(answer, stop=thresholds).plot(ax=ax)

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw the answer.

        Each line shows the probability of the last class of a probe. The background of
        a token is darker the higher this probability is for the first probe.

        Parameters
        ----------
        ax : Axes, default=None
            Where to draw; None: a new figure.

        Returns
        -------
        GenerationDisplay
            This display, with ``ax_``, ``figure_`` and ``lines_``.

        Raises
        ------
        TypeError, ValueError
            If ``answer`` is not a :class:`ProbedText`, ``stop`` names a probe that is
            not in the answer, or ``ax`` is not an Axes.
        ImportError
            If matplotlib is not installed.
        """
        require_extra("plots", type(self).__name__)
        self._check()
        self.ax_ = self._make_axes() if ax is None else _require_axes(ax)
        self.figure_ = self.ax_.get_figure(root=True)  # type: ignore[assignment]  # an Axes has one
        self.lines_ = {}
        for number, name in enumerate(self.answer.probabilities):
            self.lines_[name] = self._draw_line(name, _LINES[number % len(_LINES)])
        for name, threshold in (self.stop or {}).items():
            color = self.lines_[name].get_color()
            self.ax_.axhline(threshold, color=color, linestyle=":", linewidth=1)
        self._write_tokens()
        self._finish()
        return self

    def _check(self) -> None:
        if not isinstance(self.answer, ProbedText):
            raise TypeError(
                "The 'answer' parameter of GenerationDisplay must be a ProbedText, "
                "and generate_with_probes returns a list with one for each prompt. Got "
                f"{type(self.answer).__name__} instead."
            )
        if self.stop is not None and not isinstance(self.stop, Mapping):
            raise TypeError(
                "The 'stop' parameter of GenerationDisplay must be None or a dict of "
                f"thresholds by the names of probes. Got {self.stop!r} instead."
            )
        for name, threshold in (self.stop or {}).items():
            if name not in self.answer.probabilities:
                raise ValueError(
                    "The 'stop' parameter of GenerationDisplay must name probes among "
                    f"{sorted(self.answer.probabilities)}. Got {name!r} instead."
                )
            if not isinstance(threshold, Real) or not 0 <= threshold <= 1:
                raise ValueError(
                    "The 'stop' parameter of GenerationDisplay must give a probability "
                    f"in [0, 1] for the probe {name!r}. Got {threshold!r} instead."
                )

    def _make_axes(self) -> Axes:
        import matplotlib.pyplot as plt

        width = max(_WIDTH, _TOKEN * len(self.answer.tokens) + 1)
        _, ax = plt.subplots(figsize=(width, _HEIGHT), layout="constrained")
        return ax

    def _draw_line(self, name: str, style: dict[str, Any]) -> Any:  # noqa: ANN401 - a Line2D
        answer = self.answer
        before = answer.prompt_probabilities[name][-1]
        seen = np.append(before, answer.probabilities[name][:, -1])
        label = str(answer.classes[name][-1]) if name in answer.classes else "last"
        named = f"{name}: {label}" if len(answer.probabilities) > 1 else label
        places = np.arange(-1, len(seen) - 1)
        (line,) = self.ax_.plot(places, seen, label=named, markersize=4, **style)
        return line

    def _write_tokens(self) -> None:
        """Write the tokens below the lines, upright, on a coloured background."""
        from matplotlib.colors import LinearSegmentedColormap

        ground = LinearSegmentedColormap.from_list("ground", ["#FFFFFF", _GROUND])
        first = next(iter(self.answer.probabilities.values()))[:, -1]
        tokens = self.answer.tokens
        width = self.ax_.get_window_extent().width / self.ax_.figure.dpi
        every = int(np.ceil(_TOKEN * 0.9 * (len(tokens) + 1) / width))
        places = np.arange(every - 1, len(tokens), every)
        shown = [_show(tokens[place]) for place in places]
        self.ax_.set_xticks([-1, *places], ["prompt", *shown])
        labels = self.ax_.get_xticklabels()
        for label in labels:
            label.set(rotation=90, fontsize=8, family=list_token_fonts())
        for label, place in zip(labels[1:], places, strict=True):
            box = {"facecolor": ground(float(first[place])), "edgecolor": "none"}
            label.set_bbox({**box, "pad": 1.5})
        labels[0].set(color=_GREY, style="italic")

    def _finish(self) -> None:
        ax, answer = self.ax_, self.answer
        ax.set(ylim=(-0.02, 1.02), xlim=(-1.5, len(answer.tokens) - 0.5))
        ax.axvline(-0.5, color=_GREY, linewidth=0.8)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(axis="x", length=0)
        names = list(self.lines_)
        label = self.lines_[names[0]].get_label()
        several = len(names) > 1
        said = "Probability" if several else f"Probability of {label!r}"
        # Names may be of anything; a dollar in them begins no formula.
        ax.set_ylabel(said, parse_math=False)
        title = f"Ended by {answer.stopped_by!r}"
        ax.set_title(title, loc="left", parse_math=False)
        if several:
            # Given by hand, since lines whose label begins with _ are left out else.
            lines = list(self.lines_.values())
            labels = [str(line.get_label()) for line in lines]
            legend = ax.legend(lines, labels, frameon=False)
            for text in legend.get_texts():
                text.set_parse_math(False)


def _show(token: str) -> str:
    """Make white space visible, and shorten a long token."""
    shown = token.replace("\n", "↵").replace("\t", "⇥")
    # Some fonts have control characters, without an image.
    shown = "".join(one if one.isprintable() else "\ufffd" for one in shown)
    shown = replace_missing_letters(shown)
    # matplotlib reads a dollar sign as the beginning of a formula.
    shown = shown.replace("$", r"\$")
    if len(shown) > _MOST_CHARACTERS:
        shown = f"{shown[: _MOST_CHARACTERS - 1]}…"
    return shown or "·"


def _require_axes(ax: Any) -> Axes:  # noqa: ANN401 - validated here
    from matplotlib.axes import Axes

    if not isinstance(ax, Axes):
        raise TypeError(
            "The 'ax' parameter of GenerationDisplay must be None or Axes of "
            f"matplotlib. Got {ax!r} instead."
        )
    return ax
