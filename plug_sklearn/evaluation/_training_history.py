"""Trained probes → their losses and scores by epoch, as a table."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

CURVES = ("epoch", "train_loss", "valid_loss", "valid_score")


def training_history(estimators: Any) -> pd.DataFrame:  # noqa: ANN401 - see below
    """Put the epochs of trained probes in a table.

    Parameters
    ----------
    estimators : estimator, sequence of estimators or dict
        A fitted :class:`PlugMLPClassifier` or :class:`PlugCNNClassifier`, alone, in a
        pipeline or as the best of a search; several of them; or what
        :func:`~sklearn.model_selection.cross_validate` returns with
        ``return_estimator=True``. One whose fit failed is counted and has no rows: it
        is None, as in a report, or has no history where others of its class have one.

    Returns
    -------
    DataFrame
        A row for each fit and epoch. Columns: ``fold``, the number of the estimator;
        ``epoch``, from 1; ``train_loss``; ``valid_loss`` and ``valid_score``, what was
        monitored, where rows were held out; ``kept``, whether the weights of the epoch
        are those that predict.

    Raises
    ------
    ValueError
        If an estimator has no history of training.

    See Also
    --------
    TrainingCurveDisplay : The same as a picture.

    Examples
    --------
    >>> import numpy as np
    >>> from plug_sklearn import PlugMLPClassifier, training_history
    >>> y = np.arange(100) % 2
    >>> X = np.random.default_rng(0).normal(size=(100, 4)) + y[:, None]
    >>> probe = PlugMLPClassifier(max_epochs=3, random_state=0).fit(X, y)
    >>> training_history(probe)[["fold", "epoch"]]
       fold  epoch
    0     0      1
    1     0      2
    2     0      3
    """
    return tabulate_history(find_probes(estimators))


def tabulate_history(probes: Mapping[int, Any]) -> pd.DataFrame:
    """Put the epochs of probes, given by fold, in a table."""
    frames = []
    for fold, probe in probes.items():
        history = pd.DataFrame(probe.history_)
        frame = history[[name for name in CURVES if name in history]].copy()
        frame.insert(0, "fold", fold)
        frame["kept"] = frame["epoch"] == probe.best_epoch_
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def find_trained(estimator: Any) -> Any | None:  # noqa: ANN401 - estimators of any kind
    """Find the probe with a history of training within an estimator.

    Parameters
    ----------
    estimator : estimator
        A probe, or a pipeline or search around it.

    Returns
    -------
    estimator or None
        The probe; None where there is none.
    """
    if isinstance(estimator, Pipeline):
        return find_trained(estimator[-1])
    if hasattr(estimator, "best_estimator_"):
        return find_trained(estimator.best_estimator_)
    is_trained = hasattr(estimator, "history_") and hasattr(estimator, "best_epoch_")
    return estimator if is_trained else None


def find_probes(estimators: Any) -> dict[int, Any]:  # noqa: ANN401 - as above
    """Find the probe in each of several estimators.

    Parameters
    ----------
    estimators : estimator, iterable of estimators or dict
        As in :func:`training_history`.

    Returns
    -------
    dict of int to estimator
        Probes with a history of training, by the numbers of the estimators. Those whose
        fit failed are left out.

    Raises
    ------
    ValueError
        If an estimator has none, or there is no estimator.
    """
    if isinstance(estimators, Mapping):
        if "estimator" not in estimators:
            raise ValueError(
                "The 'estimators' parameter of training_history must hold fitted "
                "estimators, as cross_validate returns them with "
                f"return_estimator=True. Got the keys {list(estimators)} instead."
            )
        estimators = estimators["estimator"]
    # A pipeline has a length and elements too.
    is_one = isinstance(estimators, BaseEstimator) or not isinstance(
        estimators, Iterable
    )
    given = [estimators] if is_one else list(estimators)
    probes = [find_trained(estimator) for estimator in given]
    # Beside one that has a history, others of its class are those whose fit failed.
    alike = {
        type(estimator)
        for estimator, probe in zip(given, probes, strict=True)
        if probe is not None
    }
    failed = {type(None), *alike} if alike else set()
    without = [
        type(estimator).__name__
        for estimator, probe in zip(given, probes, strict=True)
        if probe is None and type(estimator) not in failed
    ]
    if without or not probes:
        found = f"{without[0]} without one" if without else "none"
        raise ValueError(
            "The 'estimators' parameter of training_history must be fitted estimators "
            f"with a history of training, such as PlugMLPClassifier. Got {found}."
        )
    return {fold: probe for fold, probe in enumerate(probes) if probe is not None}
