"""Probes of every token, which go on from sums over the tokens so far."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from plug_sklearn.embedding.models import LoadedModel
from plug_sklearn.embedding.passes import ForwardPass, Request, pad_prompts
from plug_sklearn.embedding.prompts import OpenPrompt, TokenizedPrompts


class _Stream(Protocol):
    """What ``start_stream`` of a classifier gives."""

    def update(
        self, token_features: NDArray[np.floating], texts: Sequence[int] | None = None
    ) -> NDArray[np.floating]:
        """Take one token of some texts; gives the probabilities of these."""


class TokenStream:
    """What one probe of tokens says of the prompts and answers of a batch.

    Parameters
    ----------
    steps : Pipeline
        All steps after the embedder. The last one has ``start_stream``.
    tokens : list of ndarray of shape (n_tokens, n_layers, n_parts, hidden_size)
        The states of each prompt's pooled tokens.
    owns_answer : ndarray of shape (n_prompts,), bool
        Whether the answer's tokens are pooled.
    """

    def __init__(
        self,
        steps: Pipeline,
        tokens: Sequence[NDArray[np.floating]],
        owns_answer: NDArray[np.bool_],
    ) -> None:
        self.steps = steps
        self.owns_answer = owns_answer
        classifier: Any = steps[-1]
        self._stream: _Stream = classifier.start_stream(n_texts=len(tokens))
        self.current = np.full((len(tokens), len(classifier.classes_)), np.nan)
        for row, states in enumerate(tokens):
            if len(states):
                features = self._transform(states)
                for place in range(len(features)):
                    self._update(features[place : place + 1], np.array([row]))

    def update(
        self, states: NDArray[np.floating], batches: Sequence[NDArray[np.intp]]
    ) -> list[NDArray[np.floating]]:
        """Take several tokens, one after the other.

        Parameters
        ----------
        states : ndarray of shape (n, n_layers, n_parts, hidden_size)
            The states of all of them.
        batches : sequence of ndarray of int
            The rows that each token is of; n rows in all.

        Returns
        -------
        list of ndarray of shape (n_rows, n_classes)
            The probabilities after each token.
        """
        features = self._transform(states)
        ends = np.cumsum([len(rows) for rows in batches])
        found = []
        for rows, part in zip(batches, np.split(features, ends[:-1]), strict=True):
            own = self.owns_answer[rows]
            if own.any():
                self._update(part[own], rows[own])
            found.append(self.current[rows])
        return found

    def _update(
        self, features: NDArray[np.floating], rows: NDArray[np.integer]
    ) -> None:
        self.current[rows] = self._stream.update(features, texts=rows.tolist())

    def _transform(self, states: NDArray[np.floating]) -> NDArray[np.floating]:
        if len(self.steps) == 1:
            return states
        features: NDArray[np.floating] = np.asarray(self.steps[:-1].transform(states))
        return features


def read_prompt_tokens(
    loaded: LoadedModel, request: Request, prompts: Sequence[OpenPrompt]
) -> list[NDArray[np.float32]]:
    """Read the states of each prompt's pooled tokens, before the model writes.

    The request keeps every token.

    Returns
    -------
    list of ndarray of shape (n_tokens, n_layers, n_parts, hidden_size), float32
        Empty for prompts of which no token is pooled.
    """
    forward = ForwardPass(loaded, request)
    found = []
    for prompt in prompts:
        if not prompt.own.any():
            found.append(np.empty((0, 1, 1, 1), dtype=np.float32))
            continue
        text = TokenizedPrompts.join([prompt.ids], [prompt.own])
        batch = pad_prompts(text, [0], forward.pad_id, forward.row_multiple)
        found.append(np.asarray(forward.run(batch)[0], dtype=np.float32))
    return found
