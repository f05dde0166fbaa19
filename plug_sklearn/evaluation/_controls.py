"""Cross-validate a probe with controls that show what its score means; plot these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, is_classifier

from plug_sklearn._progress import count_fits
from plug_sklearn._warnings import warn_user
from plug_sklearn.evaluation._control_inputs import (
    OWNER,
    PROBE,
    choose_controls,
    make_controls,
    name_control,
    read_labels,
)
from plug_sklearn.evaluation._drawing import (
    BLUE,
    ScoresDisplay,
    name_score,
    write_folds,
    write_name,
)
from plug_sklearn.evaluation._folds import Scoring, split_folds
from plug_sklearn.evaluation._inputs import check_rows, split_pipeline
from plug_sklearn.evaluation._layer_fits import score_probe

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = ("control", "fold", "fit_time")
#: Bars of controls: light, so that the points of folds can be seen on them.
LIGHT = "#BBBBBB"


def probe_controls(
    pipeline: BaseEstimator,
    X: Any,  # noqa: ANN401 - texts in any container, or activations
    y: ArrayLike,
    *,
    cv: Any = None,  # noqa: ANN401 - as scikit-learn's functions take it
    groups: ArrayLike | None = None,
    scoring: Scoring | None = None,
    controls: str | Sequence[str] = "all",
    n_jobs: int | None = None,
    random_state: int | np.random.RandomState | None = None,
    verbose: bool = False,
) -> pd.DataFrame:
    """Cross-validate a probe and its controls, all on the same folds.

    Only the difference between the score of the probe and the scores of the controls
    shows what the model has learnt. Each text goes through the model once, and once
    through the model with random weights.

    Parameters
    ----------
    pipeline : Pipeline or classifier
        For texts: a pipeline that begins with an :class:`HFEmbeddingTransformer` and
        ends in a classifier. For activations: a classifier, alone or at the end of a
        pipeline.
    X : array-like of shape (n_samples,) or (n_samples, n_layers, ...)
        Texts or conversations, if the pipeline begins with an embedder; activations
        otherwise.
    y : array-like of shape (n_samples,)
        Labels.
    cv : int, splitter or iterable, default=None
        Folds, as in :func:`~sklearn.model_selection.cross_validate`. They are the same
        for all controls.
        With ``groups``, None or a number of folds keeps groups together, by
        ``StratifiedGroupKFold`` for classes and ``GroupKFold`` otherwise.
    groups : array-like of shape (n_samples,), default=None
        Groups for ``cv``. They are also passed to the ``fit`` of a probe that takes
        them, such as :class:`PlugMLPClassifier`.
    scoring : str, callable, sequence of str or dict, default=None
        One score or several, as in :func:`~sklearn.model_selection.cross_validate`;
        None: the accuracy.
    controls : "all" or sequence of str, default="all"
        Names of the controls to run, from the list below. ``"all"``: all of them for
        texts; for activations, ``"majority"``, ``"shuffled_labels"`` and
        ``"first_layer"``.
    n_jobs : int, default=None
        Number of joblib workers, over folds.
    random_state : int, RandomState instance or None, default=None
        Seed of the shuffled labels and of the random weights.
    verbose : bool, default=False
        Whether to show a progress bar, in a terminal or notebook.

    Returns
    -------
    DataFrame
        A row for each control and fold; the probe comes first. Columns: ``control``,
        its name, or ``"probe"``; ``fold``, from 0; a column for each score, named after
        it, or ``score`` if it has no name; and ``fit_time`` and ``score_time`` in
        seconds, without the time of the language models.

    Raises
    ------
    TypeError, ValueError
        If a parameter is invalid, or if all fits of the probe fail.

    Warns
    -----
    UserWarning
        If a control cannot be fitted, such as a bag of words on texts without words.
        Its scores are NaN.

    See Also
    --------
    ControlsDisplay : Plots these scores.
    transfer_matrix : Tests a probe on other data sets.

    Notes
    -----
    The controls are:

    ``"majority"``
        Predicts the class frequencies of the training samples for every sample.
    ``"text_length"``
        Logistic regression on the logarithms of the numbers of characters and words.
    ``"bag_of_words"``, ``"tf_idf"``
        Logistic regression on the counts of words, or on their TF-IDF weights.
    ``"shuffled_labels"``
        The probe, trained and tested on shuffled labels, which are as easy to memorise
        as the true ones. Equal texts with the same label also share one label after the
        shuffling. Labels are shuffled within groups; if all samples of a group have the
        same label, the group exchanges it with other such groups. The score of the
        probe minus this score is the selectivity of the probe [1]_.
    ``"first_layer"``
        The probe, with every layer replaced by the first layer of the model.
    ``"random_weights"``
        The probe, on the same model with random weights, initialised as they were
        before training.

    References
    ----------
    .. [1] J. Hewitt and P. Liang (2019). Designing and Interpreting Probes with Control
       Tasks. EMNLP 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from plug_sklearn import LayerAggregator, probe_controls
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> y = np.arange(200) % 2
    >>> X = np.random.default_rng(0).normal(size=(200, 3, 1, 8))
    >>> X[:, 1, 0, 0] += 3 * y
    >>> probe = make_pipeline(LayerAggregator(layers=[1]), LogisticRegression())
    >>> table = probe_controls(probe, X, y, scoring="roc_auc", random_state=0)
    >>> table.groupby("control", sort=False)["roc_auc"].mean().round(2)
    control
    probe              0.99
    majority           0.50
    shuffled_labels    0.43
    first_layer        0.48
    Name: roc_auc, dtype: float64
    """
    embedder, probe = split_pipeline(pipeline, OWNER)
    chosen = choose_controls(controls, has_texts=embedder is not None)
    if not is_classifier(probe):
        raise ValueError(
            f"The 'pipeline' parameter of {OWNER} must be or end in a classifier. Got "
            f"{type(pipeline).__name__} instead."
        )
    check_rows(X, y, groups, OWNER)
    labels = read_labels(y)
    validation = split_folds(probe, None, labels, cv, groups, scoring, OWNER)
    # A misspelt score is refused before the model reads any text.
    validation.score_chance(probe)
    made = make_controls(embedder, probe, X, labels, groups, chosen, random_state)
    tables: list[pd.DataFrame] = []
    for name, estimator, rows, targets in count_fits(
        made, len(chosen) + 1, "control", shown=verbose
    ):
        try:
            own = replace(validation, y=targets)
            table = score_probe(estimator, rows, own, n_jobs)
        except ValueError as error:
            if not tables:
                raise
            table = _tell_failure(name, error, tables[0])
        table.insert(0, "control", name)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _tell_failure(name: str, error: ValueError, like: pd.DataFrame) -> pd.DataFrame:
    """Warn that a control cannot be fitted, and return NaN for its scores."""
    reason = str(error).strip().rpartition("\n")[2]
    warn_user(
        f"In {OWNER}, the control {name!r} cannot be fitted on any fold, and its "
        f"scores are NaN: {reason}"
    )
    table = like.drop(columns="control")
    unknown: Any = table.columns.drop("fold")
    table[unknown] = np.nan
    return table


class ControlsDisplay(ScoresDisplay):
    """Bar plot of the scores of a probe and its controls, with a point for each fold.

    Parameters
    ----------
    table : DataFrame
        What :func:`probe_controls` returns.
    score : str, default=None
        The score to draw, a column of ``table``; None: the first.

    Attributes
    ----------
    table : DataFrame
        As given.
    score : str
        The score that is drawn.
    summary_ : DataFrame
        A row for each control, by its name. Columns: the ``mean`` and standard
        deviation ``std`` of the score over the folds, and ``lead``, the mean score of
        the probe minus that of the control.
    selectivity_ : float or None
        The lead over ``"shuffled_labels"``; None if this control was not run.
    ax_ : Axes
        The axes.
    figure_ : Figure
        Its figure.
    bars_ : BarContainer
        The bars, from top to bottom.
    points_ : Line2D
        The score of each fold.

    See Also
    --------
    probe_controls : Computes the scores.

    Examples
    --------
    >>> import numpy as np
    >>> from plug_sklearn import ControlsDisplay
    >>> from sklearn.linear_model import LogisticRegression
    >>> from plug_sklearn import LayerAggregator
    >>> from sklearn.pipeline import make_pipeline
    >>> y = np.arange(200) % 2
    >>> X = np.random.default_rng(0).normal(size=(200, 3, 1, 8))
    >>> X[:, 1, 0, 0] += 3 * y
    >>> probe = make_pipeline(LayerAggregator(layers=[1]), LogisticRegression())
    >>> display = ControlsDisplay.from_estimator(
    ...     probe, X, y, scoring="roc_auc", random_state=0
    ... )
    >>> round(display.selectivity_, 2)
    0.56
    """

    _compute = staticmethod(probe_controls)
    _columns = COLUMNS

    def __init__(self, table: pd.DataFrame, *, score: str | None = None) -> None:
        super().__init__(table, score=score)
        self.table = table
        grouped = table.groupby("control", sort=False)[self.score]
        self.summary_ = grouped.agg(["mean", "std"])
        if PROBE not in self.summary_.index:
            raise ValueError(
                f"The 'table' parameter of {type(self).__name__} must have rows of "
                f"the control {PROBE!r}. Got {list(self.summary_.index)} instead."
            )
        means = self.summary_["mean"]
        self.summary_["lead"] = means[PROBE] - means
        lead = self.summary_["lead"].get("shuffled_labels")
        self.selectivity_ = None if lead is None else float(lead)
        self._height = 1.2 + 0.35 * len(self.summary_)

    @classmethod
    def from_estimator(  # type: ignore[override]  # its first argument has another name
        cls,
        pipeline: BaseEstimator,
        X: Any,  # noqa: ANN401 - texts or activations
        y: ArrayLike,
        *,
        score: str | None = None,
        ax: Axes | Sequence[Axes] | None = None,
        **options: Any,  # noqa: ANN401 - see probe_controls
    ) -> Self:
        """Run :func:`probe_controls`, and draw its scores.

        Parameters
        ----------
        pipeline, X, y : see below
            The probe, texts or activations, and labels, as in :func:`probe_controls`.
        score : str, default=None
            The score to draw, if there are several; None: the first.
        ax : Axes, default=None
            Where to draw; None: a new figure.
        **options : dict
            Further arguments of :func:`probe_controls`, such as ``cv`` and ``groups``.

        Returns
        -------
        ControlsDisplay
            The display, drawn.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If a parameter is invalid.
        """
        return super().from_estimator(pipeline, X, y, score=score, ax=ax, **options)

    def _draw(self, axes: list[Axes]) -> None:
        (self.ax_,) = axes
        names = list(self.summary_.index)
        means = self.summary_["mean"].to_numpy()
        places = np.arange(len(names))
        colors = [BLUE if name == PROBE else LIGHT for name in names]
        self.bars_ = self.ax_.barh(places, means, height=0.7, color=colors)
        at = self.table["control"].map({name: n for n, name in enumerate(names)})
        (self.points_,) = self.ax_.plot(
            self.table[self.score], at, "o", markersize=4, color="black", alpha=0.6
        )
        self._write_means(places)
        self.ax_.set_yticks(
            places, [write_name(name_control(name), most=24) for name in names]
        )
        folds = write_folds(self.table["fold"].nunique())
        self.ax_.set_xlabel(
            f"{write_name(name_score(self.score))} (bar: mean; points: {folds})"
        )
        self.ax_.invert_yaxis()

    def _write_means(self, places: np.ndarray[Any, Any]) -> None:
        """Write each mean at the right edge, where there are no bars or points."""
        for place, mean in zip(places, self.summary_["mean"], strict=True):
            self.ax_.annotate(
                "-" if np.isnan(mean) else f"{mean:.2f}",
                (1, place),
                xycoords=("axes fraction", "data"),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                ha="left",
            )
