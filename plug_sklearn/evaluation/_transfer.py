"""Train a probe on each of several data sets, and test it on each of them."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.metrics import check_scoring
from sklearn.utils import column_or_1d
from sklearn.utils.parallel import delayed

from plug_sklearn._progress import run_jobs
from plug_sklearn.evaluation._folds import (
    CrossValidation,
    list_scores,
    split_folds,
)
from plug_sklearn.evaluation._inputs import check_rows, describe, split_pipeline

OWNER = "transfer_matrix"


def transfer_matrix(
    estimator: BaseEstimator,
    datasets: Mapping[str, tuple[Any, ArrayLike]],
    *,
    cv: Any = None,  # noqa: ANN401 - as scikit-learn's functions take it
    groups: Mapping[str, ArrayLike] | None = None,
    scoring: str | Callable[..., Any] | None = None,
    n_jobs: int | None = None,
    verbose: bool = False,
) -> pd.DataFrame:
    """Train a probe on each data set, and test it on each.

    A probe that reads a general property of texts, and not a peculiarity of one data
    set, also has a high score on other data sets. A score below chance means that the
    probe's predictions are reversed there.

    Parameters
    ----------
    estimator : estimator
        The probe. For texts, a pipeline that begins with an
        :class:`HFEmbeddingTransformer`; each distinct text goes through the language
        model once. For other data, such as activations, any estimator that takes them.
    datasets : dict
        For each name, a data set ``(X, y)``. For a classifier, all data sets must have
        the same labels.
    cv : int, splitter or iterable, default=None
        Folds for training and testing on the same data set, as in
        :func:`~sklearn.model_selection.cross_validate`.
        With ``groups``, None or a number of folds keeps groups together, by
        ``StratifiedGroupKFold`` for classes and ``GroupKFold`` otherwise.
    groups : dict, default=None
        For each data set with groups, by its name: the group of each sample, for
        ``cv``. They are also passed to the ``fit`` of an estimator that takes them.
    scoring : str or callable, default=None
        One score; None: the estimator's own.
    n_jobs : int, default=None
        Number of joblib workers, over the data sets to train on.
    verbose : bool, default=False
        Whether to show a progress bar, in a terminal or notebook.

    Returns
    -------
    DataFrame
        Scores. Rows are the data sets that the probe was trained on, and columns those
        that it was tested on. The diagonal holds the mean score over the folds of the
        cross-validation. For the other cells, the probe was trained on all samples of
        one data set and tested on all samples of the other.

    Raises
    ------
    TypeError, ValueError
        If a parameter is invalid, or the probe cannot be fitted.

    See Also
    --------
    TransferDisplay : Plots these scores.
    probe_controls : Compares a probe with its controls.

    Examples
    --------
    >>> import numpy as np
    >>> from plug_sklearn import transfer_matrix
    >>> from sklearn.linear_model import LogisticRegression
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(100) % 2
    >>> affirmed = rng.normal(size=(100, 8)) + 2 * y[:, None]
    >>> negated = rng.normal(size=(100, 8)) - 2 * y[:, None]
    >>> datasets = {"affirmed": (affirmed, y), "negated": (negated, y)}
    >>> transfer_matrix(LogisticRegression(), datasets, scoring="roc_auc").round(2)
    tested_on   affirmed  negated
    trained_on
    affirmed         1.0      0.0
    negated          0.0      1.0
    """
    embedder, probe = split_pipeline(estimator, OWNER, "estimator")
    check_datasets(datasets, groups)
    scorer = _check_scorer(probe, scoring)
    labels = {name: column_or_1d(y) for name, (_, y) in datasets.items()}
    if is_classifier(probe):
        _check_labels(labels)
    validations = {
        name: split_folds(probe, None, y, cv, (groups or {}).get(name), scorer, OWNER)
        for name, y in labels.items()
    }
    rows = {name: X for name, (X, _) in datasets.items()}
    if embedder is not None:
        rows = _embed(embedder, rows)
    scores = run_jobs(
        [delayed(_score_row)(probe, name, rows, validations) for name in rows],
        n_jobs=n_jobs,
        unit="data set",
        verbose=verbose,
    )
    return pd.DataFrame(
        scores,
        index=pd.Index(list(rows), name="trained_on"),
        columns=pd.Index(list(rows), name="tested_on"),
    )


def check_datasets(datasets: Any, groups: Any) -> None:  # noqa: ANN401 - anything else is refused
    """Raise an error unless data sets are pairs, and groups are of some of them."""
    is_mapping = isinstance(datasets, Mapping)
    if not is_mapping or len(datasets) < 2:
        found = describe(datasets)
        if is_mapping:
            found = f"a dict of length {len(datasets)}"
        raise ValueError(
            f"The 'datasets' parameter of {OWNER} must be a dict of two or more pairs "
            f"(X, y), by their names. Got {found} instead."
        )
    for name, pair in datasets.items():
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            is_sequence = isinstance(pair, tuple | list)
            found = f"{len(pair)} items" if is_sequence else describe(pair)
            raise ValueError(
                f"The 'datasets' parameter of {OWNER} must give a pair (X, y) for each "
                f"name. Got {found} for {name!r} instead."
            )
    if groups is not None and not isinstance(groups, Mapping):
        raise ValueError(
            f"The 'groups' parameter of {OWNER} must be None or a dict of the groups "
            f"of data sets, by their names. Got {type(groups).__name__} instead."
        )
    unknown = sorted(set(groups or {}) - set(datasets), key=str)
    if unknown:
        raise ValueError(
            f"The 'groups' parameter of {OWNER} must have names among "
            f"{list(datasets)}. Got {unknown} instead."
        )
    for name, (X, y) in datasets.items():
        try:
            check_rows(X, y, (groups or {}).get(name), OWNER)
        except (TypeError, ValueError) as error:
            error.add_note(f"This happened for the data set {name!r} of {OWNER}.")
            raise


def _check_scorer(probe: BaseEstimator, scoring: Any) -> Callable[..., Any]:  # noqa: ANN401 - anything else is refused
    if not (scoring is None or isinstance(scoring, str) or callable(scoring)):
        raise ValueError(
            f"The 'scoring' parameter of {OWNER} must be one score: None, its name or "
            f"a callable. Got {scoring!r} instead."
        )
    scorer: Callable[..., Any] = check_scoring(probe, scoring=scoring)
    return scorer


def _check_labels(labels: Mapping[str, NDArray[Any]]) -> None:
    classes = {name: sorted(set(y.tolist()), key=str) for name, y in labels.items()}
    for one, other in pairwise(classes):
        if classes[one] != classes[other]:
            raise ValueError(
                f"The 'datasets' parameter of {OWNER} must have the same labels in all "
                f"data sets. Got {classes[one]} in {one!r} and {classes[other]} in "
                f"{other!r} instead."
            )


def _embed(embedder: Any, rows: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ANN401 - an HFEmbeddingTransformer
    """Read the texts of all data sets together, so that equal texts are read once."""
    from plug_sklearn.embedding import list_texts

    texts = {name: list_texts(X) for name, X in rows.items()}
    activations = clone(embedder).fit_transform([t for X in texts.values() for t in X])
    ends = np.cumsum([len(X) for X in texts.values()])
    return dict(zip(texts, np.split(activations, ends[:-1]), strict=True))


def _score_row(
    probe: BaseEstimator,
    trained_on: str,
    rows: Mapping[str, Any],
    validations: Mapping[str, CrossValidation],
) -> list[float]:
    """Score a probe that is trained on one data set on each of them."""
    X, own = rows[trained_on], validations[trained_on]
    try:
        fitted = clone(probe).fit(X, own.y, **own.collect_params(probe))
        table, _ = own.score(probe, X)
    except ValueError as error:
        error.add_note(f"The probe was trained on the data set {trained_on!r}.")
        raise
    (score,) = list_scores(table)
    return [
        float(table[score].mean())
        if name == trained_on
        else float(own.scoring(fitted, rows[name], other.y))
        for name, other in validations.items()
    ]
