"""Run probes that read every token, updated token by token."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from plug_sklearn.embedding.models import LoadedModel
from plug_sklearn.embedding.passes import ForwardPass, Request, pad_prompts
from plug_sklearn.embedding.prompts import OpenPrompt, TokenizedPrompts


class _Stream(Protocol):
    """The object that ``start_stream`` of a classifier returns."""

    def update(
        self, token_features: NDArray[np.floating], texts: Sequence[int] | None = None
    ) -> NDArray[np.floating]:
        """Add one token of some texts, and return the probabilities of these texts."""


class TokenStream:
    """Probabilities of one probe of all tokens, for the prompts and answers of a batch.

    ``steps`` are the steps after the embedder, the last of which has ``start_stream``.
    ``tokens`` holds the states of the pooled tokens of each prompt, of shape
    (n_tokens, n_layers, n_parts, hidden_size). ``owns_answer`` (n_prompts,) says
    whether the tokens of each answer are pooled.
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
        """Add several tokens, one after the other.

        ``states`` (n, n_layers, n_parts, hidden_size) are those of all tokens.
        ``batches`` are the rows that each token belongs to, n in all. Returns the
        probabilities after each token, (n_rows, n_classes).
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
    """Read the states of the pooled tokens of each prompt, before the model writes.

    The forward pass must keep every token. Returns float32 arrays of shape
    (n_tokens, n_layers, n_parts, hidden_size), without rows where no token is pooled.
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
