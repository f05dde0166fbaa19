"""Plot a transfer matrix: a heat map with numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator

from plug_sklearn.evaluation._drawing import Display, check_axes, name_score, write_name
from plug_sklearn.evaluation._folds import split_folds
from plug_sklearn.evaluation._transfer import transfer_matrix

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage
    from matplotlib.text import Text

#: Names of this length stand upright side by side; longer ones are slanted.
LONGEST_UPRIGHT = 9


class TransferDisplay(Display):
    """Heat map of the scores of a probe trained on each data set and tested on each.

    Parameters
    ----------
    matrix : DataFrame
        What :func:`transfer_matrix` returns.
    score : str, default=None
        The name of the score, for a label; None: no name.
    chance : float, default=None
        The score of a constant prediction. It is drawn in white, better scores in blue
        and worse ones in red. None: higher scores are darker.

    Attributes
    ----------
    matrix, score, chance
        As given.
    ax_ : Axes
        The axes.
    figure_ : Figure
        Its figure.
    image_ : AxesImage
        The heat map.
    texts_ : list of list of Text
        The number in each cell, by row.

    See Also
    --------
    transfer_matrix : Computes the scores.

    Examples
    --------
    >>> import pandas as pd
    >>> from plug_sklearn import TransferDisplay
    >>> names = ["cities", "elements"]
    >>> matrix = pd.DataFrame([[0.9, 0.4], [0.7, 0.8]], index=names, columns=names)
    >>> display = TransferDisplay(matrix, score="roc_auc", chance=0.5).plot()
    >>> display.texts_[0][1].get_text()
    '0.40'
    """

    def __init__(
        self,
        matrix: pd.DataFrame,
        *,
        score: str | None = None,
        chance: float | None = None,
    ) -> None:
        owner = type(self).__name__
        is_square = isinstance(matrix, pd.DataFrame) and list(matrix.index) == list(
            matrix.columns
        )
        if not is_square or not len(matrix) or matrix.isna().all(axis=None):
            found = type(matrix).__name__
            if isinstance(matrix, pd.DataFrame):
                found = f"one with rows {list(matrix.index)}"
            raise ValueError(
                f"The 'matrix' parameter of {owner} must be a DataFrame of scores with "
                f"equal names of rows and columns, as transfer_matrix returns it. Got "
                f"{found} instead."
            )
        self.matrix = matrix
        self.score = score
        self.chance = chance
        self._height = min(2.0 + 0.5 * len(matrix), 8.0)

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        datasets: Mapping[str, tuple[Any, ArrayLike]],
        *,
        scoring: str | Callable[..., Any] | None = None,
        ax: Axes | None = None,
        **options: Any,  # noqa: ANN401 - see transfer_matrix
    ) -> Self:
        """Run :func:`transfer_matrix`, and draw its scores.

        Parameters
        ----------
        estimator, datasets : see below
            The probe and the data sets, as in :func:`transfer_matrix`.
        scoring : str or callable, default=None
            One score; None: the estimator's own.
        ax : Axes, default=None
            Where to draw; None: a new figure.
        **options : dict
            Further arguments of :func:`transfer_matrix`, such as ``cv`` and ``groups``.

        Returns
        -------
        TransferDisplay
            The display, drawn. Its ``chance`` is the mean score of a constant
            prediction in the cross-validation of each data set.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If a parameter is invalid.
        """
        check_axes(ax, 1, f"{cls.__name__}.from_estimator")
        matrix = transfer_matrix(estimator, datasets, scoring=scoring, **options)
        groups = options.get("groups") or {}
        levels = []
        for name, (_, y) in datasets.items():
            cv, own = options.get("cv"), groups.get(name)
            validation = split_folds(estimator, None, y, cv, own, scoring, cls.__name__)
            levels.append(validation.score_chance(estimator).to_numpy().mean())
        chance = float(np.mean(levels))
        display = cls(
            matrix,
            score=scoring if isinstance(scoring, str) else None,
            chance=None if np.isnan(chance) else chance,
        )
        return display.plot(ax=ax)

    def _draw(self, axes: list[Axes]) -> None:
        (self.ax_,) = axes
        values = self.matrix.to_numpy(dtype=np.float64)
        self.image_: AxesImage = self.ax_.imshow(
            values, aspect="auto", **self._choose_colours(values)
        )
        names = [write_name(name, most=20) for name in self.matrix.columns]
        places = range(len(names))
        self.ax_.set_yticks(places, names)
        slant: dict[str, Any] = {}
        if max(map(len, names)) > LONGEST_UPRIGHT:
            slant = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
        self.ax_.set_xticks(places, names, **slant)
        self.ax_.set(xlabel="Tested on", ylabel="Trained on")
        self.ax_.spines[:].set_visible(False)
        self.ax_.tick_params(length=0)
        self.texts_ = [
            [self._write(row, column, value) for column, value in enumerate(cells)]
            for row, cells in enumerate(values)
        ]
        if self.figure_ is not None:
            label = write_name(name_score(self.score or "score"), most=24)
            self.figure_.colorbar(self.image_, ax=self.ax_, label=label)

    def _choose_colours(self, values: np.ndarray[Any, Any]) -> dict[str, Any]:
        if self.chance is None:
            return {"cmap": "Blues"}
        width = max(float(np.nanmax(abs(values - self.chance))), 1e-6)
        return {
            "cmap": "RdBu",
            "vmin": self.chance - width,
            "vmax": self.chance + width,
        }

    def _write(self, row: int, column: int, value: float) -> Text:
        """Write a number in its cell, white where the cell is dark."""
        shade = self.image_.to_rgba(np.array([value]))[0]
        luminance = float(np.dot(shade[:3], (0.299, 0.587, 0.114)))
        text = "-" if np.isnan(value) else f"{value:.2f}"
        return self.ax_.text(
            column,
            row,
            text,
            ha="center",
            va="center",
            color="white" if luminance < 0.5 and text != "-" else "black",
            fontweight="bold" if row == column else "normal",
        )
