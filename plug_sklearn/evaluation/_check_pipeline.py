"""A check of a whole pipeline before any text goes through the language model."""

import warnings
from collections.abc import Iterator, Mapping
from reprlib import repr as shorten
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

OWNER = "check_pipeline"
#: Rows of the first try; all rows are tried only if these are refused.
_FEW_ROWS = 200
#: Tokens of each made-up text, where every token is kept.
_N_TOKENS = 3


def check_pipeline(
    pipeline: BaseEstimator,
    X: Any,  # noqa: ANN401 - texts in any container
    y: ArrayLike,
) -> None:
    """Check a pipeline against texts and labels, before any text is computed.

    Every mistake that does not depend on the activations is found in seconds: a layer
    that the model does not have, a parameter out of range, an empty text, or labels
    that are too few or of one class. The texts become tokens, but the model's weights
    are not loaded. The steps after the embedder are fitted on random numbers of the
    shape that the activations will have, for one epoch where they have epochs.

    Parameters
    ----------
    pipeline : Pipeline or search
        An estimator that begins with an :class:`HFEmbeddingTransformer`; it is not
        changed. Of a ``GridSearchCV`` over one, each value of the grid is tried once.
    X : list, tuple, 1-D array, Series, datasets column, pyarrow array or \
one-column frame
        Strings or conversations.
    y : array-like of shape (n_samples,)
        Labels.

    Raises
    ------
    TypeError, ValueError
        What ``fit`` would raise later; or if ``pipeline`` does not begin with an
        embedder.

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
    labels = column_or_1d(y)
    checked: dict[str, Any] = {}
    for candidate in _list_candidates(pipeline):
        if not isinstance(candidate, Pipeline) or not hasattr(
            candidate[0], "selected_tokens"
        ):
            raise ValueError(
                f"The 'pipeline' parameter of {OWNER} must be a Pipeline that begins "
                "with an HFEmbeddingTransformer, or a search over one. "
                f"Got {_describe(candidate)} instead."
            )
        described = repr(candidate[0].get_params())
        if described not in checked:
            embedder = clone(candidate[0]).fit(X)
            check_consistent_length(embedder.selected_tokens(X), labels)
            checked[described] = embedder
        if len(candidate.steps) > 1:
            _try_steps(candidate[1:], checked[described], labels)


def _describe(value: object) -> str:
    return repr(value) if isinstance(value, BaseEstimator) else shorten(value)


def _list_candidates(pipeline: BaseEstimator) -> Iterator[BaseEstimator]:
    """Give an estimator itself, or those of a search, one for each value of a grid."""
    if not is_search(pipeline):
        yield pipeline
        return
    yield pipeline.estimator
    grid = getattr(pipeline, "param_grid", {})
    for own in [grid] if isinstance(grid, Mapping) else grid:
        for name, values in own.items():
            for value in values:
                yield clone(pipeline.estimator).set_params(**{name: value})


def _try_steps(
    steps: Pipeline,
    embedder: Any,  # noqa: ANN401 - an HFEmbeddingTransformer
    labels: NDArray[Any],
) -> None:
    """Fit the steps after an embedder on made-up activations."""
    if is_classifier(steps):
        check_classification_targets(labels)
    values = steps.get_params()
    # A value that is no number of epochs is left for the step to refuse.
    epochs = [
        name
        for name, value in values.items()
        if name.endswith("__max_epochs") and isinstance(value, int) and value > 1
    ]
    shortened = clone(steps).set_params(**dict.fromkeys(epochs, 1))
    turns = pd.Series(labels).groupby(labels, dropna=False).cumcount()
    few = np.sort(np.argsort(turns.to_numpy(), kind="stable")[:_FEW_ROWS])
    with warnings.catch_warnings():
        # What is said about random numbers means nothing.
        warnings.simplefilter("ignore")
        try:
            shortened.fit(_make_up(embedder, len(few)), labels[few])
        except (TypeError, ValueError):
            if len(few) == len(labels):
                raise
            # A step may need more rows, such as a PCA of many components.
            shortened.fit(_make_up(embedder, len(labels)), labels)


def _make_up(embedder: Any, n_samples: int) -> NDArray[Any]:  # noqa: ANN401 - as above
    """Make random activations of the shape that a fitted embedder will give."""
    shape = (len(embedder.layers_), len(embedder.parts_), embedder.hidden_size_)
    rng = np.random.default_rng(0)
    if embedder.pooling is None:
        made_up = np.empty(n_samples, dtype=object)
        for row in range(n_samples):
            made_up[row] = rng.standard_normal((_N_TOKENS, *shape), dtype=np.float32)
    else:
        made_up = rng.standard_normal((n_samples, *shape), dtype=np.float32)
    # Later steps choose layers and parts by their names in the model.
    return name_axes(made_up, embedder.layers_, embedder.parts_)
