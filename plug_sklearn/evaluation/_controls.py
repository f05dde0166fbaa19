"""Cross-validate a probe together with controls that show what its score means."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, is_classifier
from sklearn.dummy import DummyClassifier
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.multiclass import type_of_target

from plug_sklearn._progress import count_fits
from plug_sklearn._warnings import warn_user
from plug_sklearn.evaluation._control_inputs import (
    make_text_baselines,
    read_inputs,
    shuffle_labels,
)
from plug_sklearn.evaluation._folds import (
    Scoring,
    score_chance,
    split_folds,
)
from plug_sklearn.evaluation._inputs import check_rows, split_pipeline
from plug_sklearn.evaluation._joint_fits import score_probe

OWNER = "probe_controls"
PROBE = "probe"
#: Controls that need texts.
TEXT_CONTROLS = ("text_length", "bag_of_words", "tf_idf", "random_weights")
CONTROLS = (
    "majority",
    "text_length",
    "bag_of_words",
    "tf_idf",
    "shuffled_labels",
    "first_layer",
    "random_weights",
)


class _Control(NamedTuple):
    """An estimator of one row of the table, with the rows and labels to fit."""

    name: str
    estimator: BaseEstimator
    X: Any
    y: NDArray[Any]


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

    Only the part of a score above the scores of the controls shows what the model has
    learnt. Each text goes through the model once, and once through the model with
    random weights.

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
        Predicts the class frequencies of the training rows for every row.
    ``"text_length"``
        Logistic regression on the logarithms of the numbers of characters and words.
    ``"bag_of_words"``, ``"tf_idf"``
        Logistic regression on the counts of words, or on their TF-IDF weights.
    ``"shuffled_labels"``
        The probe, trained and tested on shuffled labels, which are as easy to memorise
        as the true ones. Equal texts with the same label still have one label in
        common. Labels are shuffled within groups; if all rows of a group have the same
        label, the group exchanges it with other such groups. The score of the probe
        minus this score is the selectivity of the probe [1]_.
    ``"first_layer"``
        The probe, with every layer replaced by the first layer of the model.
    ``"random_weights"``
        The probe, on the same model with random weights, initialised as before its
        training.

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
    chosen = _choose_controls(controls, has_texts=embedder is not None)
    if not is_classifier(probe):
        raise ValueError(
            f"The 'pipeline' parameter of {OWNER} must be or end in a classifier. Got "
            f"{type(pipeline).__name__} instead."
        )
    check_rows(X, y, groups, OWNER)
    labels = _read_labels(y)
    folds = split_folds(probe, np.zeros((len(labels), 1)), labels, cv, groups, OWNER)
    # A misspelt score is refused before the model reads any text.
    score_chance(probe, labels, folds, scoring)
    made = _make_controls(embedder, probe, X, labels, groups, chosen, random_state)
    score = partial(
        score_probe, groups=groups, folds=folds, scoring=scoring, n_jobs=n_jobs
    )
    tables: list[pd.DataFrame] = []
    for control in count_fits(made, len(chosen) + 1, "control", shown=verbose):
        try:
            table = score(control.estimator, control.X, control.y)
        except ValueError as error:
            if not tables:
                raise
            table = _tell_failure(control.name, error, tables[0])
        table.insert(0, "control", control.name)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _read_labels(y: ArrayLike) -> NDArray[Any]:
    labels: NDArray[Any] = column_or_1d(y)
    classes = np.unique(labels)
    is_continuous = type_of_target(labels).startswith("continuous")
    if is_continuous or len(classes) < 2:
        found = "continuous values" if is_continuous else f"one class, {classes}"
        raise ValueError(
            f"The 'y' parameter of {OWNER} must be labels of two classes or more. Got "
            f"{found} instead."
        )
    return labels


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


def _choose_controls(controls: Any, *, has_texts: bool) -> list[str]:  # noqa: ANN401 - validated here
    possible = [name for name in CONTROLS if has_texts or name not in TEXT_CONTROLS]
    if isinstance(controls, str) and controls == "all":
        return possible
    is_listed = isinstance(controls, Sequence) and not isinstance(controls, str)
    if not is_listed or not controls or not set(controls) <= set(CONTROLS):
        raise ValueError(
            f"The 'controls' parameter of {OWNER} must be 'all', or one or more of "
            f"{list(CONTROLS)} in a list. Got {controls!r} instead."
        )
    impossible = [name for name in controls if name not in possible]
    if impossible:
        raise ValueError(
            f"The 'controls' parameter of {OWNER} must be among {possible} for "
            "activations: others need texts, and a pipeline that begins with an "
            f"HFEmbeddingTransformer. Got {impossible} instead."
        )
    return [name for name in possible if name in controls]


def _make_controls(
    embedder: Any,  # noqa: ANN401 - an HFEmbeddingTransformer or None
    probe: BaseEstimator,
    X: Any,  # noqa: ANN401 - texts or activations
    y: NDArray[Any],
    groups: ArrayLike | None,
    chosen: Sequence[str],
    random_state: int | np.random.RandomState | None,
) -> Iterator[_Control]:
    """Yield the probe and its controls one by one, so that few arrays are in memory."""
    seeds = check_random_state(random_state).randint(2**31, size=2)
    inputs = read_inputs(embedder, X, wants_first="first_layer" in chosen)
    yield _Control(PROBE, probe, inputs.activations, y)
    if "majority" in chosen:
        yield _Control("majority", DummyClassifier(), np.zeros((len(y), 1)), y)
    for name, baseline in make_text_baselines().items():
        if name in chosen:
            yield _Control(name, baseline, inputs.contents, y)
    if "shuffled_labels" in chosen:
        shuffled = shuffle_labels(
            y, items=inputs.items, groups=groups, random_state=seeds[0]
        )
        yield _Control("shuffled_labels", probe, inputs.activations, shuffled)
    if "first_layer" in chosen:
        yield _Control("first_layer", probe, inputs.first_layer, y)
    if "random_weights" in chosen:
        from plug_sklearn.embedding import with_random_weights

        with with_random_weights(embedder, seeds[1]) as untrained:
            activations = untrained.fit_transform(X)
        yield _Control("random_weights", probe, activations, y)
