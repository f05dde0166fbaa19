"""Fit a probe to layers and folds and score it, with fits together if possible."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import chain, product
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
from sklearn.utils import gen_even_slices
from sklearn.utils.parallel import delayed

from plug_sklearn._blas import use_one_blas_thread
from plug_sklearn._progress import run_jobs
from plug_sklearn._sklearn import take_rows
from plug_sklearn._warnings import warn_user
from plug_sklearn.evaluation._folds import (
    CHANCE,
    CrossValidation,
    Scoring,
    list_scores,
    split_folds,
)
from plug_sklearn.evaluation._inputs import check_estimator, check_rows
from plug_sklearn.features import LayerAggregator

#: Features (n_samples, n_features), by the positions of their layer and part.
Features = Mapping[tuple[int, int], NDArray[Any]]

#: Arguments of ``fit`` that hold one value a row, which all layers of a fold share.
SHARED = {"sample_weight", "groups"}
#: Numbers in the features of a layer up to which BLAS is limited to one thread: more
#: threads take more time there than they save.
MOST_NUMBERS = 2**22


def sweep_layers(
    estimator: BaseEstimator,
    X: Any,  # noqa: ANN401 - activations, or texts in any container
    y: ArrayLike,
    *,
    embedder: BaseEstimator | None = None,
    layers: str | int | Sequence[int],
    parts: str | int | Sequence[int | str],
    cv: Any,  # noqa: ANN401 - as scikit-learn's functions take it
    scoring: Scoring | None,
    groups: ArrayLike | None,
    params: Mapping[str, Any] | None = None,
    n_jobs: int | None,
    verbose: bool = False,
    owner: str,
) -> pd.DataFrame:
    """Do what :func:`layer_sweep` does, with errors that name the ``owner``."""
    check_estimator(estimator, owner)
    if embedder is None:
        X = _read_activations(X, owner)
    elif getattr(embedder, "pooling", "last") is None:
        raise _refuse_tokens(owner)
    # Errors in these are raised before texts are read, which takes long.
    check_rows(X, y, groups, owner)
    validation = split_folds(estimator, X, y, cv, groups, scoring, owner, params)
    chance = validation.score_chance(estimator)
    if embedder is not None:
        embedder = clone(embedder)
        X = _read_activations(embedder.fit_transform(X), owner)
    selector = LayerAggregator(layers=layers, parts=parts).fit(X)
    activations = np.asarray(X).reshape(len(X), *selector.input_shape_)
    cells = list(product(selector.layers_, selector.parts_))
    features = {cell: activations[:, *cell] for cell in cells}
    frames = _score_cells(estimator, features, validation, n_jobs, verbose)
    layer_names = getattr(embedder, "layers_", selector.model_layers_)
    part_names = getattr(embedder, "parts_", selector.part_names_)
    _complete(frames, cells, layer_names, part_names, chance)
    return pd.concat(frames, ignore_index=True)


def _complete(
    frames: Sequence[pd.DataFrame],
    cells: Sequence[tuple[int, int]],
    layers: Sequence[int] | None,
    parts: Sequence[str] | None,
    chance: pd.DataFrame,
) -> None:
    """Add the layer, the part, and chance levels beside scores, to each table."""
    for (layer, part), frame in zip(cells, frames, strict=True):
        for score in list_scores(frame):
            place = list(frame.columns).index(score) + 1
            frame.insert(place, score + CHANCE, chance.get(score, np.nan))
        frame.insert(0, "layer", layers[layer] if layers else layer)
        frame.insert(1, "part", parts[part] if parts else part)


def _score_cells(
    estimator: BaseEstimator,
    features: Features,
    validation: CrossValidation,
    n_jobs: int | None,
    verbose: bool,
) -> list[pd.DataFrame]:
    """Return the scores on each layer and part.

    Workers get several layers each, so that their probes can be fitted together.
    """
    shape = next(iter(features.values())).shape
    n_joint = _count_joint_fits(estimator, shape, validation)
    n_joint_layers = max(1, n_joint // len(validation.folds))
    n_chunks = max(-(-len(features) // n_joint_layers), effective_n_jobs(n_jobs))
    cells = list(features.items())
    chunks = gen_even_slices(len(cells), min(n_chunks, len(cells)))
    scored: list[tuple[list[pd.DataFrame], str]] = run_jobs(
        [
            delayed(_score_layers)(estimator, dict(cells[at]), validation, n_joint)
            for at in chunks
        ],
        n_jobs=n_jobs,
        unit="group of layers",
        verbose=verbose,
    )
    for failure in {failure for _, failure in scored if failure}:
        warn_user(
            "In layer_sweep, networks were trained one by one, which is slower, "
            f"because training them together failed: {failure}"
        )
    return list(chain(*(tables for tables, _ in scored)))


def _read_activations(X: Any, owner: str) -> NDArray[Any]:  # noqa: ANN401 - anything else is refused
    activations: NDArray[Any] = np.asanyarray(X)
    if activations.dtype == object and any(map(np.ndim, activations.ravel()[:1])):
        raise _refuse_tokens(owner)
    is_numeric = activations.dtype.kind not in "OSU"
    if not is_numeric or activations.ndim not in (3, 4) or not activations.size:
        other = ", or texts with an 'embedder'" if owner == "layer_sweep" else ""
        raise ValueError(
            f"The 'X' parameter of {owner} must be activations of 3 or 4 axes, none "
            f"of them empty{other}. Got {activations.dtype} of shape "
            f"{activations.shape} instead."
        )
    return activations


def _refuse_tokens(owner: str) -> ValueError:
    return ValueError(
        f"The 'X' parameter of {owner} must be pooled activations, one vector of "
        "each layer for each text. Got activations of every token instead, which "
        "pooling=None keeps. Give the 'embedder' a 'pooling', such as 'mean', or "
        "aggregate the tokens first."
    )


def _count_joint_fits(
    estimator: BaseEstimator,
    shape: tuple[int, ...],
    validation: CrossValidation,
) -> int:
    """Count the probes, of all layers and folds, that are to be fitted together.

    ``shape`` is that of the features of a layer: (n_samples, n_features). The count is
    1 for estimators that cannot be fitted together. Raises a ValueError if a
    parameter of a :class:`PlugMLPClassifier` is invalid.
    """
    params = validation.collect_params(estimator)
    lengths = [np.shape(value)[:1] for value in params.values()]
    if (
        type(estimator).__name__ != "PlugMLPClassifier"
        or not set(params) <= SHARED
        or any(length != shape[:1] for length in lengths)
        or sklearn.get_config()["enable_metadata_routing"]
    ):
        return 1
    # Other estimators need no torch, which takes seconds to import.
    from plug_sklearn.classifiers import can_fit_jointly, count_joint_probes

    estimator._validate_params()
    if not can_fit_jointly(estimator):
        return 1
    n_rows = max(len(train) for train, _ in validation.folds)
    return count_joint_probes(estimator, n_rows, shape[-1])


def _score_layers(
    estimator: BaseEstimator,
    features: Features,
    validation: CrossValidation,
    n_joint: int,
) -> tuple[list[pd.DataFrame], str]:
    """Score a probe on several layers and parts.

    ``n_joint`` probes are fitted together. They have equal shares of the time. Returns
    a table of scores for each layer and part, and the error that prevented fitting
    probes together, or an empty string. Raises a ValueError, with a note that names the
    layer and part, if all fits to one of them fail.
    """
    failure = ""
    if n_joint > 1:
        try:
            layers = list(features.values())
            return _score_jointly(estimator, layers, validation, n_joint), failure
        except Exception as error:
            # One probe that cannot be fitted ends the fit of all. One by one, the
            # others are fitted, and that one gets scikit-learn's warning.
            failure = f"{type(error).__name__}: {error}"
    frames = []
    for (layer, part), X in features.items():
        try:
            # The fitted estimators are dropped: they may be larger than the features.
            with use_one_blas_thread() if X.size <= MOST_NUMBERS else nullcontext():
                frame, _ = validation.score(estimator, X)
        except ValueError as error:
            error.add_note(
                f"This happened at position {layer} of axis 1 and {part} of axis 2."
            )
            raise
        frames.append(frame)
    return frames, failure


def _score_jointly(
    estimator: BaseEstimator,
    features: Sequence[NDArray[Any]],
    validation: CrossValidation,
    n_joint: int,
) -> list[pd.DataFrame]:
    from plug_sklearn.classifiers import fit_jointly

    folds = validation.folds
    frames: list[list[pd.DataFrame]] = [[] for _ in features]
    shared = {"y": validation.y, **validation.collect_params(estimator)}
    cells = list(product(range(len(features)), range(len(folds))))
    for first in range(0, len(cells), n_joint):
        chosen = cells[first : first + n_joint]
        probes = [clone(estimator) for _ in chosen]
        start = perf_counter()
        arguments = [
            {
                name: take_rows(value, folds[fold][0])
                for name, value in (shared | {"X": features[layer]}).items()
            }
            for layer, fold in chosen
        ]
        fit_jointly(probes, arguments)
        seconds = (perf_counter() - start) / len(probes)
        for probe, (layer, fold) in zip(probes, chosen, strict=True):
            alone = replace(validation, folds=[folds[fold]], params=None)
            scores, _ = alone.score(FrozenEstimator(probe), features[layer])
            frames[layer].append(scores.assign(fold=fold, fit_time=seconds))
    return [pd.concat(of_layer, ignore_index=True) for of_layer in frames]


def score_probe(
    probe: BaseEstimator,
    X: NDArray[Any],
    validation: CrossValidation,
    n_jobs: int | None,
) -> pd.DataFrame:
    """Score a probe on activations.

    If only aggregators come before a :class:`PlugMLPClassifier`, its networks for all
    folds are trained together, which is faster.
    """
    is_piped = isinstance(probe, Pipeline)
    *steps, last = [step for _, step in probe.steps] if is_piped else [probe]
    if not all(isinstance(step, LayerAggregator) for step in steps):
        steps, last = [], probe
    if effective_n_jobs(n_jobs) == 1 and X.dtype != object:
        if _count_joint_fits(last, X.shape, validation) > 1:
            # Aggregators learn nothing from the rows.
            features = X
            for step in steps:
                features = clone(step).fit_transform(features)
            features = np.reshape(features, (len(features), -1))
            n_joint = _count_joint_fits(last, features.shape, validation)
            (table,), _ = _score_layers(last, {(0, 0): features}, validation, n_joint)
            return table
    return validation.score(probe, X, n_jobs=n_jobs)[0]
