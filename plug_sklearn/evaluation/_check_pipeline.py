"""Check a whole pipeline before any text goes through the language model."""

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.pipeline import Pipeline
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from plug_sklearn._activations import name_axes
from plug_sklearn._sklearn import is_search
from plug_sklearn._warnings import warn_user
from plug_sklearn.evaluation._folds import collect_fit_params, split_folds, uses_groups
from plug_sklearn.evaluation._inputs import check_groups, check_rows, describe

OWNER = "check_pipeline"
#: Number of rows of the first trial fit. All rows are tried only if this fit fails.
_FEW_ROWS = 200
#: Number of tokens in each made-up text, if every token is kept.
_N_TOKENS = 3


def check_pipeline(
    pipeline: BaseEstimator,
    X: Any,  # noqa: ANN401 - texts in any container
    y: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    params: Mapping[str, Any] | None = None,
) -> None:
    """Check a pipeline with texts and labels, before the language model reads any text.

    Within seconds, this finds every mistake that does not depend on the activations,
    such as a layer that the model does not have, a parameter out of range, an empty
    text, too few labels, or labels of a single class. The texts are tokenized, but the
    weights of the model are not loaded. The steps after the embedder are fitted on
    random numbers of the shape that the activations will have, for one epoch if they
    are trained by epochs.

    Parameters
    ----------
    pipeline : Pipeline or search
        A pipeline that begins with an :class:`HFEmbeddingTransformer`, or a
        ``GridSearchCV`` over one. Each value of the grid is tried once. The
        pipeline and the search are not changed.
    X : list, tuple, 1-D array, Series, datasets column, pyarrow array or \
one-column frame
        Strings or conversations.
    y : array-like of shape (n_samples,)
        Labels, or, for a :class:`PlugTokenClassifier`, a sequence of labels for each
        text.
    groups : array-like of shape (n_samples,), default=None
        Groups of the texts, such as those that a search gets for its folds.
    params : dict, default=None
        Further arguments of ``fit``, such as ``{"plugmlpclassifier__groups": groups}``.

    Raises
    ------
    TypeError, ValueError
        The errors that ``fit`` would raise later. Also if ``pipeline`` does not begin
        with an embedder.

    Warns
    -----
    UserWarning
        If the folds of a search do not use ``groups``, or if only the folds do: the
        probe needs the groups too, since its validation samples should not share groups
        with its training samples.

    See Also
    --------
    HFEmbeddingTransformer.selected_tokens : Shows which tokens of each text are pooled.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from plug_sklearn import HFEmbeddingTransformer, check_pipeline
    >>> pipeline = make_pipeline(
    ...     HFEmbeddingTransformer(pooling="median"), LogisticRegression()
    ... )
    >>> check_pipeline(pipeline, ["Gold is a metal.", "Gold is blue."], [1, 0])
    Traceback (most recent call last):
    ...
    ValueError: The 'pooling' parameter of HFEmbeddingTransformer must be among \
('last', 'first', 'mean', 'max'), a sequence of these, or None. Got 'median' instead.
    """
    labels = _read_labels(y)
    check_groups(groups, len(labels), OWNER)
    if groups is not None and is_search(pipeline):
        _check_groups(pipeline, y, groups, params or {})
    checked: dict[str, Any] = {}
    for candidate in _list_candidates(pipeline):
        if not isinstance(candidate, Pipeline) or not hasattr(
            candidate[0], "selected_tokens"
        ):
            raise ValueError(
                f"The 'pipeline' parameter of {OWNER} must be a Pipeline that begins "
                "with an HFEmbeddingTransformer, or a search over one. "
                f"Got {describe(candidate)} instead."
            )
        described = repr(candidate[0].get_params())
        if described not in checked:
            embedder = clone(candidate[0]).fit(X)
            tokens = embedder.selected_tokens(X)
            check_consistent_length(tokens, labels)
            if _label_tokens(labels):
                _check_lengths(labels, tokens)
            checked[described] = embedder
        if len(candidate.steps) > 1:
            _try_steps(candidate[1:], checked[described], labels)


def _read_labels(y: Any) -> NDArray[Any]:  # noqa: ANN401 - validated by the steps
    """Make an array of labels; sequences of labels of tokens stay as they are."""
    given = y.to_numpy() if hasattr(y, "to_numpy") else y
    is_array = isinstance(given, np.ndarray) and given.dtype == object
    if not (is_array or isinstance(given, list | tuple)) or not _label_tokens(given):
        return np.asarray(column_or_1d(y))
    labels = np.empty(len(given), dtype=object)
    for position, own in enumerate(given):
        labels[position] = own
    return labels


def _label_tokens(labels: Any) -> bool:  # noqa: ANN401 - labels of any kind
    """Return whether each label is a sequence of labels of tokens."""
    return len(labels) > 0 and all(
        isinstance(own, list | tuple | np.ndarray) for own in labels
    )


def _check_lengths(labels: NDArray[Any], tokens: list[list[str]]) -> None:
    for position, (own, those) in enumerate(zip(labels, tokens, strict=True)):
        if len(own) != len(those):
            raise ValueError(
                f"The 'y' given to {OWNER} must hold a label for each token of a text. "
                f"Got {len(own)} labels for {len(those)} tokens at position "
                f"{position} instead."
            )


def _list_candidates(pipeline: BaseEstimator) -> Iterator[BaseEstimator]:
    """List an estimator itself, or a search's estimators, one for each grid value."""
    if not is_search(pipeline):
        yield pipeline
        return
    yield pipeline.estimator
    grid = getattr(pipeline, "param_grid", {})
    for own in [grid] if isinstance(grid, Mapping) else grid:
        for name, values in own.items():
            for value in values:
                yield clone(pipeline.estimator).set_params(**{name: value})


def _check_groups(
    search: Any,  # noqa: ANN401 - a search
    y: ArrayLike,
    groups: ArrayLike,
    params: Mapping[str, Any],
) -> None:
    """Check the folds of a search, and warn if its groups do not reach all of it."""
    if uses_groups(search.cv):
        rows = np.zeros((np.shape(y)[0], 1))
        check_rows(rows, y, groups, OWNER)
        split_folds(search, None, y, search.cv, groups, None, OWNER)
    else:
        warn_user(
            f"The folds of {type(search).__name__} do not keep groups together with "
            f"cv={search.cv!r}. Use a splitter that does, such as "
            "StratifiedGroupKFold(5)."
        )
    wanted = [
        name
        for name in collect_fit_params(search.estimator, None, groups)
        if name not in params
    ]
    if wanted:
        given = ", ".join(f"{name}=groups" for name in wanted)
        warn_user(
            f"The groups given to {type(search).__name__}.fit reach only its folds. "
            f"Give them to the probe too, as in fit(X, y, groups=groups, {given}), or "
            "call sklearn.set_config(enable_metadata_routing=True)."
        )


def _try_steps(
    steps: Pipeline,
    embedder: Any,  # noqa: ANN401 - an HFEmbeddingTransformer
    labels: NDArray[Any],
) -> None:
    """Fit the steps after an embedder on made-up activations."""
    labels_tokens = _label_tokens(labels)
    if is_classifier(steps) and not labels_tokens:
        check_classification_targets(labels)
    values = steps.get_params()
    # If the value is not a number of epochs, the step's own error is better.
    epochs = [
        name
        for name, value in values.items()
        if name.endswith("__max_epochs") and isinstance(value, int) and value > 1
    ]
    shortened = clone(steps).set_params(**dict.fromkeys(epochs, 1))
    few = np.arange(min(len(labels), _FEW_ROWS))
    if not labels_tokens:
        turns = pd.Series(labels).groupby(labels, dropna=False).cumcount()
        few = np.sort(np.argsort(turns.to_numpy(), kind="stable")[:_FEW_ROWS])
    with warnings.catch_warnings():
        # Warnings about random numbers mean nothing.
        warnings.simplefilter("ignore")
        try:
            shortened.fit(_make_up(embedder, labels[few]), labels[few])
        except (TypeError, ValueError):
            if len(few) == len(labels):
                raise
            # A step may need more rows, such as a PCA of many components.
            shortened.fit(_make_up(embedder, labels), labels)


def _make_up(embedder: Any, labels: NDArray[Any]) -> NDArray[Any]:  # noqa: ANN401 - as above
    """Make random activations of the shape and names that an embedder will give."""
    shape = (len(embedder.layers_), len(embedder.parts_), embedder.hidden_size_)
    rng = np.random.default_rng(0)
    if embedder.pooling is not None:
        made = rng.standard_normal((len(labels), *shape), dtype=np.float32)
        return name_axes(made, embedder.layers_, embedder.parts_)
    tokens = np.empty(len(labels), dtype=object)
    labels_tokens = _label_tokens(labels)
    for row, own in enumerate(labels):
        one = rng.standard_normal((1, *shape), dtype=np.float32)
        # All tokens of a text share the memory of one.
        n_tokens = len(own) if labels_tokens else _N_TOKENS
        tokens[row] = np.broadcast_to(one, (n_tokens, *shape))
    return name_axes(tokens, embedder.layers_, embedder.parts_)
