"""Features of several layers → scores of a probe on each, fitted at once if it can."""

from collections.abc import Mapping, Sequence
from itertools import product
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import sklearn
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils import _safe_indexing

from plug_sklearn.evaluation._folds import Folds, score_folds
from plug_sklearn.evaluation._tables import Scoring

#: Positions of a layer and of a part.
Cell = tuple[int, int]
#: Arguments of ``fit``, one for each sample, that all layers of a fold share.
SHARED = {"sample_weight", "groups"}


def count_at_once(
    estimator: BaseEstimator,
    fit_params: Mapping[str, Any],
    activations: NDArray[Any],
    folds: Folds,
) -> int:
    """Count the probes that are to be fitted at once.

    Parameters
    ----------
    estimator : estimator
        The probe.
    fit_params : dict
        Arguments of its ``fit``.
    activations : ndarray of shape (n_samples, ..., n_features)
        What holds the features.
    folds : list of (ndarray, ndarray)
        Training and test rows.

    Returns
    -------
    int
        1 for probes that cannot be.

    Raises
    ------
    ValueError
        If a parameter of a probe that might be is not what it must be.
    """
    given = [np.shape(value)[:1] for value in fit_params.values()]
    if (
        type(estimator).__name__ != "PlugMLPClassifier"
        or not set(fit_params) <= SHARED
        or any(length != activations.shape[:1] for length in given)
        or sklearn.get_config()["enable_metadata_routing"]
    ):
        return 1
    # Others need no torch, which takes seconds to import.
    from plug_sklearn.classifiers._side_by_side import (
        can_fit_side_by_side,
        count_side_by_side,
    )

    estimator._validate_params()
    if not can_fit_side_by_side(estimator):
        return 1
    n_rows = max(len(train) for train, _ in folds)
    return count_side_by_side(estimator, n_rows, activations.shape[-1])


def score_layers(
    estimator: BaseEstimator,
    features: Mapping[Cell, NDArray[Any]],
    y: ArrayLike,
    folds: Folds,
    scoring: Scoring | None,
    fit_params: Mapping[str, Any],
    n_at_once: int = 1,
) -> list[pd.DataFrame]:
    """Score a probe on each of several layers.

    Parameters
    ----------
    estimator : estimator
        The probe.
    features : dict of Cell to ndarray of shape (n_samples, n_features)
        Features of each layer and part.
    y, folds, scoring, fit_params
        As ``score_folds`` takes them.
    n_at_once : int, default=1
        Probes, of layers and folds, to fit at once.

    Returns
    -------
    list of DataFrame
        For each layer and part, what ``score_folds`` gives. Probes that are fitted at
        once have even shares of the time.

    Raises
    ------
    ValueError
        If none of the fits to a layer and part succeeds; a note says which it is.
    """
    if n_at_once > 1:
        try:
            layers = list(features.values())
            return _score_at_once(
                estimator, layers, y, folds, scoring, fit_params, n_at_once
            )
        except Exception:
            # One of them cannot be fitted. Alone, the others can, and that one gets
            # the warning that it would have got.
            pass
    frames = []
    for (layer, part), X in features.items():
        try:
            # The fitted estimators stay behind: they may be larger than the features.
            frame, _ = score_folds(
                estimator, X, y, folds, scoring=scoring, fit_params=fit_params
            )
        except ValueError as error:
            error.add_note(f"That was at position {layer} of axis 1, {part} of axis 2.")
            raise
        frames.append(frame)
    return frames


def _score_at_once(
    estimator: BaseEstimator,
    features: Sequence[NDArray[Any]],
    y: ArrayLike,
    folds: Folds,
    scoring: Scoring | None,
    fit_params: Mapping[str, Any],
    n_at_once: int,
) -> list[pd.DataFrame]:
    from plug_sklearn.classifiers._side_by_side import fit_side_by_side

    frames: list[list[pd.DataFrame]] = [[] for _ in features]
    cells = list(product(range(len(features)), range(len(folds))))
    for first in range(0, len(cells), n_at_once):
        chosen = cells[first : first + n_at_once]
        probes = [clone(estimator) for _ in chosen]
        start = perf_counter()
        arguments = [
            {
                name: _safe_indexing(value, folds[fold][0])
                for name, value in {"X": features[layer], "y": y, **fit_params}.items()
            }
            for layer, fold in chosen
        ]
        fit_side_by_side(probes, arguments)
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
