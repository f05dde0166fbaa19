"""Score a probe on all folds, with its fits trained together if possible."""

from typing import Any

import numpy as np
import pandas as pd
from joblib import effective_n_jobs
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline

from plug_sklearn.evaluation._folds import (
    Folds,
    Scoring,
    collect_fit_params,
    score_folds,
)
from plug_sklearn.evaluation._layer_scores import count_joint_fits, score_layers
from plug_sklearn.features import LayerAggregator


def score_probe(
    probe: BaseEstimator,
    X: NDArray[Any],
    y: NDArray[Any],
    groups: ArrayLike | None,
    folds: Folds,
    scoring: Scoring | None,
    n_jobs: int | None,
) -> pd.DataFrame:
    """Score a probe on activations, as ``score_folds`` does.

    If only aggregators come before a :class:`PlugMLPClassifier`, its networks for all
    folds are trained together, which is faster.
    """
    steps, last = _split_off_aggregators(probe)
    if effective_n_jobs(n_jobs) == 1 and X.dtype != object:
        params = collect_fit_params(last, None, groups)
        if count_joint_fits(last, params, X.shape, folds) > 1:
            # Aggregators learn nothing from the rows.
            features = X
            for step in steps:
                features = clone(step).fit_transform(features)
            features = np.reshape(features, (len(features), -1))
            n_joint = count_joint_fits(last, params, features.shape, folds)
            (table,), _ = score_layers(
                last, {(0, 0): features}, y, folds, scoring, params, n_joint
            )
            return table
    table, _ = score_folds(
        probe,
        X,
        y,
        folds,
        scoring=scoring,
        fit_params=collect_fit_params(probe, None, groups),
        n_jobs=n_jobs,
    )
    return table


def _split_off_aggregators(
    probe: BaseEstimator,
) -> tuple[list[LayerAggregator], BaseEstimator]:
    """Return the aggregators before a probe, and the probe that reads features."""
    if not isinstance(probe, Pipeline):
        return [], probe
    steps = [step for _, step in probe.steps]
    if all(isinstance(step, LayerAggregator) for step in steps[:-1]):
        return steps[:-1], steps[-1]
    return [], probe
