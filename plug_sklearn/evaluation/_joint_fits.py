"""Scores of a probe on layers and folds, with its fits trained together if possible."""

import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import product
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import sklearn
from joblib import effective_n_jobs
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from plug_sklearn._sklearn import take_rows
from plug_sklearn.evaluation._folds import (
    Folds,
    Scoring,
    collect_fit_params,
    score_folds,
)
from plug_sklearn.features import LayerAggregator

#: Arguments of ``fit`` that hold one value a row, which all layers of a fold share.
SHARED = {"sample_weight", "groups"}
#: Numbers in the features of a layer up to which BLAS is limited to one thread.
MOST_NUMBERS = 2**22


def count_joint_fits(
    estimator: BaseEstimator,
    fit_params: Mapping[str, Any],
    shape: tuple[int, ...],
    folds: Folds,
) -> int:
    """Count the probes, of all layers and folds, that are to be fitted together.

    ``shape`` is that of the features of a layer: (n_samples, n_features). The count is
    1 for estimators that cannot be fitted together. Raises a ValueError if a
    parameter of a :class:`PlugMLPClassifier` is invalid.
    """
    lengths = [np.shape(value)[:1] for value in fit_params.values()]
    if (
        type(estimator).__name__ != "PlugMLPClassifier"
        or not set(fit_params) <= SHARED
        or any(length != shape[:1] for length in lengths)
        or sklearn.get_config()["enable_metadata_routing"]
    ):
        return 1
    # Other estimators need no torch, which takes seconds to import.
    from plug_sklearn.classifiers import can_fit_jointly, count_joint_probes

    estimator._validate_params()
    if not can_fit_jointly(estimator):
        return 1
    n_rows = max(len(train) for train, _ in folds)
    return count_joint_probes(estimator, n_rows, shape[-1])


def score_layers(
    estimator: BaseEstimator,
    features: Mapping[tuple[int, int], NDArray[Any]],
    y: ArrayLike,
    folds: Folds,
    scoring: Scoring | None,
    fit_params: Mapping[str, Any],
    n_joint: int,
) -> tuple[list[pd.DataFrame], str]:
    """Score a probe on several layers and parts.

    ``features`` holds, by the positions of a layer and a part, an array of shape
    (n_samples, n_features). ``n_joint`` probes are fitted together.

    Returns the tables of ``score_folds``, one for each layer and part, and the error
    that prevented fitting probes together, or an empty string. Probes that are
    fitted together have equal shares of the time. Raises a ValueError, with a note
    that names the layer and part, if all fits to one of them fail.
    """
    failure = ""
    if n_joint > 1:
        try:
            layers = list(features.values())
            return _score_jointly(
                estimator, layers, y, folds, scoring, fit_params, n_joint
            ), failure
        except Exception as error:
            # One probe that cannot be fitted ends the fit of all. One by one, the
            # others are fitted, and that one gets scikit-learn's warning.
            failure = f"{type(error).__name__}: {error}"
    frames = []
    for (layer, part), X in features.items():
        try:
            # The fitted estimators are dropped: they may be larger than the features.
            with _limit_blas_threads(X):
                frame, _ = score_folds(
                    estimator, X, y, folds, scoring=scoring, fit_params=fit_params
                )
        except ValueError as error:
            error.add_note(
                f"This happened at position {layer} of axis 1 and {part} of axis 2."
            )
            raise
        frames.append(frame)
    return frames, failure


def _limit_blas_threads(X: NDArray[Any]) -> AbstractContextManager[object]:
    """Limit BLAS to one thread while a probe is fitted to few features.

    More threads take more time there than they save. The limit holds for the whole
    process. Only the main thread sets it, since several threads might not restore it in
    order.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and X.size <= MOST_NUMBERS:
        limits: AbstractContextManager[object] = threadpool_limits(1, user_api="blas")
        return limits
    return nullcontext()


def _score_jointly(
    estimator: BaseEstimator,
    features: Sequence[NDArray[Any]],
    y: ArrayLike,
    folds: Folds,
    scoring: Scoring | None,
    fit_params: Mapping[str, Any],
    n_joint: int,
) -> list[pd.DataFrame]:
    from plug_sklearn.classifiers import fit_jointly

    frames: list[list[pd.DataFrame]] = [[] for _ in features]
    cells = list(product(range(len(features)), range(len(folds))))
    for first in range(0, len(cells), n_joint):
        chosen = cells[first : first + n_joint]
        probes = [clone(estimator) for _ in chosen]
        start = perf_counter()
        arguments = [
            {
                name: take_rows(value, folds[fold][0])
                for name, value in {"X": features[layer], "y": y, **fit_params}.items()
            }
            for layer, fold in chosen
        ]
        fit_jointly(probes, arguments)
        seconds = (perf_counter() - start) / len(probes)
        for probe, (layer, fold) in zip(probes, chosen, strict=True):
            scores, _ = score_folds(
                FrozenEstimator(probe),
                features[layer],
                y,
                [folds[fold]],
                scoring=scoring,
                fit_params={},
            )
            frames[layer].append(scores.assign(fold=fold, fit_time=seconds))
    return [pd.concat(of_layer, ignore_index=True) for of_layer in frames]


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
