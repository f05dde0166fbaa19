"""Scores and sizes of a probe for several budgets of parameters, also as a plot."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import FitFailedWarning
from sklearn.utils.parallel import delayed

from plug_sklearn._progress import run_jobs
from plug_sklearn.evaluation._drawing import (
    BLUE,
    GREY,
    VERMILION,
    ScoresDisplay,
    add_legend,
    label_ticks,
    mark_point,
    name_score,
    write_folds,
    write_name,
)
from plug_sklearn.evaluation._folds import (
    CrossValidation,
    Scoring,
    find_failure,
    split_folds,
)
from plug_sklearn.evaluation._inputs import check_estimator, check_rows
from plug_sklearn.evaluation._training_curves import find_trained

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OWNER = "capacity_curve"
#: Each is twice the one before; the default of the classifiers is 5.
TARGET_RATIOS = (0.625, 1.25, 2.5, 5.0, 10.0, 20.0, 40.0)
#: Labels of the networks whose width is at a limit.
ADVICE = {
    "least": 'least width; sizing="budget" goes below',
    "most": 'greatest width; sizing="budget" goes above',
}


def capacity_curve(
    estimator: BaseEstimator,
    X: Any,  # noqa: ANN401 - whatever the estimator takes
    y: ArrayLike,
    *,
    target_ratios: Sequence[float] = TARGET_RATIOS,
    param_name: str = "target_ratio",
    cv: Any = None,  # noqa: ANN401 - as scikit-learn's functions take it
    scoring: Scoring | None = None,
    groups: ArrayLike | None = None,
    params: Mapping[str, Any] | None = None,
    n_jobs: int | None = None,
    verbose: bool = False,
) -> pd.DataFrame:
    """Cross-validate a probe for several budgets of parameters, on the same folds.

    With ``sizing="heuristic"``, the default, networks have a smallest and a largest
    width. On few samples, all small ratios give the network of the smallest width, so
    the curve is flat there: the column ``width_limit`` shows where. With
    ``sizing="budget"``, the size of the network follows ``target_ratio``.

    Parameters
    ----------
    estimator : estimator
        A :class:`PlugMLPClassifier` or :class:`PlugCNNClassifier`, or a pipeline that
        ends in one.
    X : array-like of shape (n_samples, ...)
        Features, or what the first step of the pipeline takes.
    y : array-like of shape (n_samples,)
        Labels.
    target_ratios : sequence of float, default=(0.625, 1.25, 2.5, 5.0, 10.0, 20.0, 40.0)
        Numbers of trainable parameters per training sample to aim for.
    param_name : str, default="target_ratio"
        Name of the parameter; in a pipeline, for example
        ``"plugmlpclassifier__target_ratio"``.
    cv : int, splitter or iterable, default=None
        Folds, as in :func:`~sklearn.model_selection.cross_validate`. They are the same
        for all budgets.
        With ``groups``, None or a number of folds keeps groups together, by
        ``StratifiedGroupKFold`` for classes and ``GroupKFold`` otherwise.
    scoring : str, callable, sequence of str or dict, default=None
        One score or several, as in :func:`~sklearn.model_selection.cross_validate`;
        None: the estimator's own.
    groups : array-like of shape (n_samples,), default=None
        Groups for ``cv``. They also reach the ``fit`` of an estimator that takes them,
        alone or at the end of a pipeline.
    params : dict, default=None
        Further arguments of the estimator's ``fit``.
    n_jobs : int, default=None
        Number of joblib workers, over budgets.
    verbose : bool, default=False
        Whether to show a progress bar, in a terminal or notebook.

    Returns
    -------
    DataFrame
        A row for each budget and fold. Columns: ``target_ratio``; ``n_train``, the
        number of training samples; ``n_parameters``, the number of trainable parameters
        of all members; ``width_limit``, ``"least"`` or ``"most"`` where the network has
        the smallest or the largest width that ``sizing="heuristic"`` allows, so that a
        still smaller or larger ratio gives the same network, and otherwise ``"none"``;
        ``fold``, from 0; a column for each score, named after it, or ``score`` if it
        has no name; ``fit_time`` and ``score_time``, in seconds.

    Raises
    ------
    ValueError
        If a ratio is not a positive number; or if the estimator has no parameter
        ``param_name``, does not count its parameters, or cannot be fitted on a fold.

    See Also
    --------
    CapacityCurveDisplay : Plots the curve.

    Examples
    --------
    >>> import numpy as np
    >>> from plug_sklearn import PlugMLPClassifier, capacity_curve
    >>> y = np.arange(100) % 2
    >>> X = np.random.default_rng(0).normal(size=(100, 4)) + y[:, None]
    >>> probe = PlugMLPClassifier(max_epochs=3, random_state=0)
    >>> curve = capacity_curve(probe, X, y, target_ratios=[1, 5, 10], cv=2)
    >>> curve[["target_ratio", "n_train", "n_parameters", "width_limit", "fold"]]
       target_ratio  n_train  n_parameters width_limit  fold
    0           1.0       50          6700       least     0
    1           1.0       50          6700       least     1
    2           5.0       50         25415        none     0
    3           5.0       50         25415        none     1
    4          10.0       50         89155        none     0
    5          10.0       50         89155        none     1
    """
    ratios = _read_ratios(target_ratios)
    check_estimator(estimator, OWNER)
    _find_parameter(clone(estimator), param_name)
    check_rows(X, y, groups, OWNER)
    validation = split_folds(estimator, X, y, cv, groups, scoring, OWNER, params)
    candidates = [clone(estimator).set_params(**{param_name: r}) for r in ratios]
    frames: list[pd.DataFrame] = run_jobs(
        [delayed(_score_ratio)(one, X, validation) for one in candidates],
        n_jobs=n_jobs,
        unit="size",
        verbose=verbose,
    )
    for ratio, frame in zip(ratios, frames, strict=True):
        frame.insert(0, "target_ratio", ratio)
        frame.insert(1, "n_train", [len(train) for train, _ in validation.folds])
    return pd.concat(frames, ignore_index=True)


def _read_ratios(target_ratios: Any) -> list[float]:  # noqa: ANN401 - checked below
    is_sequence = np.iterable(target_ratios) and not isinstance(target_ratios, str)
    ratios = list(target_ratios) if is_sequence else []
    are_positive = [isinstance(r, Real) and 0 < float(r) < np.inf for r in ratios]
    if not ratios or not all(are_positive) or len(set(ratios)) < len(ratios):
        raise ValueError(
            f"The 'target_ratios' parameter of {OWNER} must be a sequence of distinct "
            f"positive numbers. Got {target_ratios!r} instead."
        )
    return [float(ratio) for ratio in ratios]


def _find_parameter(estimator: BaseEstimator, param_name: str) -> None:
    names = estimator.get_params()
    if param_name not in names:
        alike = [name for name in names if name.endswith(f"__{param_name}")]
        hint = f"; there is {alike[0]!r}" if alike else ""
        raise ValueError(
            f"The 'param_name' parameter of {OWNER} must be a parameter of "
            f"{type(estimator).__name__}. Got {param_name!r} instead{hint}."
        )


def _score_ratio(
    estimator: BaseEstimator,
    X: Any,  # noqa: ANN401 - whatever the estimator takes
    validation: CrossValidation,
) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("error", FitFailedWarning)
        # The curve shows where the ratio does not decide.
        warnings.filterwarnings("ignore", "The 'target_ratio' parameter of")
        try:
            frame, fitted = validation.score(estimator, X)
        except FitFailedWarning as warning:
            raise ValueError(
                f"The 'estimator' parameter of {OWNER} must fit on every fold. "
                f"{type(estimator).__name__} failed with {find_failure(str(warning))}"
            ) from None
    probes = [find_trained(one) for one in fitted]
    sizes = [getattr(probe, "n_parameters_", None) for probe in probes]
    if None in sizes:
        raise ValueError(
            f"The 'estimator' parameter of {OWNER} must count its parameters, as "
            f"PlugMLPClassifier does. Got {type(estimator).__name__} instead."
        )
    # Other estimators need no torch, which takes seconds to import.
    from plug_sklearn.classifiers import find_width_limit

    frame.insert(0, "n_parameters", np.array(sizes))
    frame.insert(1, "width_limit", [find_width_limit(probe) for probe in probes])
    return frame


class CapacityCurveDisplay(ScoresDisplay):
    """Plot of the score and of the number of parameters for each ``target_ratio``.

    Parameters
    ----------
    curve : DataFrame
        What :func:`capacity_curve` returns.
    score : str, default=None
        The score to draw, a column of ``curve``; None: the first.

    Attributes
    ----------
    curve : DataFrame
        As given.
    score : str
        The score that is drawn.
    summary_ : DataFrame
        A row for each ``target_ratio``. Columns: the ``mean`` and standard deviation
        ``std`` of the score over the folds; the means ``n_parameters`` and ``budget``,
        which is ``target_ratio`` times the number of training samples; and
        ``width_limit``, as in ``curve`` if it is the same in all folds, or ``"none"``.
    best_ratio_ : float
        The ``target_ratio`` of the highest mean.
    ax_ : list of Axes
        The axes of the scores, and below them those of the parameters.
    figure_ : Figure
        Their figure.
    score_line_, parameters_line_, budget_line_ : Line2D
        The mean score, the number of parameters, and the budget.
    limit_marks_ : list of Line2D
        Hollow marks where networks have the smallest or the largest width, so
        ``target_ratio`` does not change them.
    band_ : PolyCollection
        The mean score ± one standard deviation over folds.

    See Also
    --------
    capacity_curve : Computes the numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from plug_sklearn import CapacityCurveDisplay, PlugMLPClassifier
    >>> y = np.arange(100) % 2
    >>> X = np.random.default_rng(0).normal(size=(100, 4)) + y[:, None]
    >>> probe = PlugMLPClassifier(max_epochs=3, random_state=0)
    >>> display = CapacityCurveDisplay.from_estimator(
    ...     probe, X, y, target_ratios=[1, 10], cv=2
    ... )
    >>> display.summary_["target_ratio"].tolist()
    [1.0, 10.0]
    """

    _compute = staticmethod(capacity_curve)
    _columns = ("target_ratio", "n_train", "n_parameters", "fold", "fit_time")
    _n_plots = 2
    _height = 5.5

    def __init__(self, curve: pd.DataFrame, *, score: str | None = None) -> None:
        super().__init__(curve, score=score)
        self.curve = curve
        rows = curve.assign(
            budget=curve["target_ratio"] * curve["n_train"],
            width_limit=curve.get("width_limit", "none"),
        )
        self.summary_ = (
            rows.groupby("target_ratio")
            .agg(
                mean=(self.score, "mean"),
                std=(self.score, "std"),
                n_parameters=("n_parameters", "mean"),
                budget=("budget", "mean"),
                width_limit=(
                    "width_limit",
                    lambda own: own.iloc[0] if own.nunique() == 1 else "none",
                ),
            )
            .reset_index()
        )
        best = self.summary_["mean"].argmax()
        self.best_ratio_ = float(self.summary_["target_ratio"][best])

    def _draw(self, axes: list[Axes]) -> None:
        upper, lower = self.ax_ = axes
        upper.set_xscale("log")
        lower.set(xscale="log", yscale="log")
        self._draw_scores(upper)
        self._draw_parameters(lower)
        label_ticks(lower, self.summary_["target_ratio"].to_numpy())
        upper.legend(frameon=False)
        add_legend(lower)

    def _draw_scores(self, axes: Axes) -> None:
        rows = self.summary_
        n_folds = self.curve["fold"].nunique()
        ratios, mean, std = rows["target_ratio"], rows["mean"], rows["std"]
        (self.score_line_,) = axes.plot(
            ratios, mean, "-o", color=BLUE, label=f"mean of {write_folds(n_folds)}"
        )
        spread = "± 1 sd" if n_folds > 1 else None
        self.band_ = axes.fill_between(
            ratios, mean - std, mean + std, color=BLUE, alpha=0.15, lw=0, label=spread
        )
        axes.margins(y=0.15)
        best = float(mean.max())
        mark_point(axes, self.best_ratio_, best, f"{best:.3f}", BLUE)
        axes.set(ylabel=write_name(name_score(self.score), most=24))

    def _draw_parameters(self, axes: Axes) -> None:
        rows = self.summary_
        ratios, sizes = rows["target_ratio"], rows["n_parameters"]
        (self.parameters_line_,) = axes.plot(
            ratios, sizes, "-s", color=VERMILION, label="built"
        )
        (self.budget_line_,) = axes.plot(
            ratios, rows["budget"], "--", color=GREY, label="ratio times training rows"
        )
        self.limit_marks_ = []
        for limit, advice in ADVICE.items():
            at = rows["width_limit"] == limit
            if at.any():
                self.limit_marks_ += axes.plot(
                    ratios[at], sizes[at], "s", color=VERMILION, mfc="w", label=advice
                )
        axes.set(xlabel="target_ratio", ylabel="Trainable parameters")
