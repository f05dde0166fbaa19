"""Predict probabilities for each token of a text, with any fitted pipeline."""

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from plug_sklearn._activations import map_ragged
from plug_sklearn._sklearn import is_search
from plug_sklearn.evaluation._inputs import check_probabilistic, describe

OWNER = "score_tokens"


def score_tokens(
    pipeline: Pipeline,
    X: Any,  # noqa: ANN401 - texts in any container
    *,
    running: bool = False,
) -> pd.DataFrame:
    """Predict probabilities for each token of some texts.

    This works for any fitted pipeline that begins with an
    :class:`HFEmbeddingTransformer` and predicts probabilities. The tokens are those
    that the pipeline pools.

    Parameters
    ----------
    pipeline : Pipeline
        The fitted pipeline, or a fitted search over one.
    X : list, tuple, 1-D array, Series, datasets column, pyarrow array or \
one-column frame
        Strings or conversations, as the pipeline takes them.
    running : bool, default=False
        How a token is scored. False: by itself, as a text whose pooled vector is the
        state of this token. True: together with the tokens before it, by pooling over
        the text up to and including this token. The score of the last token is then
        what ``pipeline.predict_proba`` returns for the text. In a causal model, a state
        does not depend on later tokens, so running scores are what a probe gives while
        the text is being written. With ``pooling="last"``, both are the same.

    Returns
    -------
    DataFrame
        A row for each token, in the order of the texts. Columns: ``text``, the position
        of the text in ``X``; ``position``, that of the token among the pooled tokens of
        its text; ``token``, the token as a string; and ``proba_<label>`` for each
        class.

    Raises
    ------
    ValueError
        If ``pipeline`` is not such a pipeline, or ``X`` is invalid.
    MemoryError
        If the activations of all tokens would not fit into free memory.
    sklearn.exceptions.NotFittedError
        If the pipeline is not fitted.

    See Also
    --------
    TokenScoresDisplay : Shows the tokens coloured by their probability.

    Examples
    --------
    >>> from plug_sklearn import score_tokens
    >>> score_tokens(pipeline, ["Paris is in Peru."])  # doctest: +SKIP
       text  position  token   proba_0   proba_1
    0     0         0  Paris  0.412301  0.587699
    1     0         1     is  0.398116  0.601884
    2     0         2     in  0.357031  0.642969
    3     0         3   Peru  0.902254  0.097746
    4     0         4      .  0.941790  0.058210
    """
    fitted = _read_pipeline(pipeline)
    embedder = fitted[0].keep_tokens()
    tokens = embedder.selected_tokens(X)
    activations = embedder.transform(X)
    # Equal texts share one array, which is scored once.
    scored = map_ragged(partial(_score_text, fitted, running=running), activations)
    lengths = [len(own) for own in tokens]
    table = pd.DataFrame(
        {
            "text": np.repeat(np.arange(len(tokens)), lengths),
            "position": np.concatenate([np.arange(length) for length in lengths]),
            "token": [token for own in tokens for token in own],
        }
    )
    names = [f"proba_{label}" for label in fitted.classes_]
    table[names] = np.concatenate(scored.tolist())
    return table


def _read_pipeline(pipeline: Any) -> Pipeline:  # noqa: ANN401 - anything else is refused
    """Check that a pipeline can score tokens; of a search, return its best pipeline."""
    if is_search(pipeline):
        check_is_fitted(pipeline, "best_estimator_")
        pipeline = pipeline.best_estimator_
    # The class is not imported here, since this takes seconds.
    if not isinstance(pipeline, Pipeline) or not hasattr(pipeline[0], "keep_tokens"):
        raise ValueError(
            f"The 'pipeline' parameter of {OWNER} must be a fitted Pipeline that "
            f"begins with an HFEmbeddingTransformer. Got {describe(pipeline)} instead."
        )
    check_is_fitted(pipeline[0])
    check_is_fitted(pipeline[-1])
    check_probabilistic(pipeline, OWNER, is_fitted=True)
    if pipeline[0].pooling is None and not hasattr(pipeline[-1], "predict_token_proba"):
        raise ValueError(
            f"The 'pipeline' parameter of {OWNER} must end in a PlugTokenClassifier if "
            "its embedder has pooling=None. Got "
            f"{type(pipeline[-1]).__name__} instead."
        )
    return pipeline


def _score_text(
    pipeline: Pipeline, activations: NDArray[np.floating], *, running: bool
) -> NDArray[np.floating]:
    """Score tokens of shape (n_tokens, n_layers, n_parts, hidden_size)."""
    pooling = pipeline[0].pooling
    probabilities: NDArray[np.floating]
    if pooling is None:
        one = np.empty(1, dtype=object)
        one[0] = activations
        if len(pipeline.steps) > 2:
            one = pipeline[1:-1].transform(one)
        (probabilities,) = pipeline[-1].predict_token_proba(one, running=running)
        return probabilities
    names = [pooling] if isinstance(pooling, str) else list(pooling)
    pooled = [
        _pool_prefixes(activations, name) if running else activations for name in names
    ]
    n_tokens, n_layers, n_parts, hidden_size = activations.shape
    # Each part under each pooling, in the order of the embedder.
    stacked = np.stack(pooled, axis=3).reshape(
        n_tokens, n_layers, n_parts * len(names), hidden_size
    )
    probabilities = pipeline[1:].predict_proba(stacked)
    return probabilities


def _pool_prefixes(
    activations: NDArray[np.floating], pooling: str
) -> NDArray[np.floating]:
    """Pool the first token, the first two, and so on up to all of them."""
    if pooling == "first":
        return np.broadcast_to(activations[:1], activations.shape)
    if pooling == "max":
        return np.maximum.accumulate(activations)
    if pooling == "mean":
        counts = np.arange(1, len(activations) + 1).reshape(-1, 1, 1, 1)
        means = np.cumsum(activations, axis=0, dtype=np.float64) / counts
        return means.astype(activations.dtype)
    return activations
