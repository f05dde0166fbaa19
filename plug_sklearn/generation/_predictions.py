"""Compute the probabilities after each token, and decide which answers end."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from transformers import PreTrainedTokenizerBase

from plug_sklearn.embedding.models import LoadedModel
from plug_sklearn.embedding.passes import ForwardPass, Request, pad_prompts
from plug_sklearn.embedding.prompts import OpenPrompt, TokenizedPrompts
from plug_sklearn.generation._probes import Probe
from plug_sklearn.generation._results import (
    PieceDecoder,
    ProbedText,
    ProbedToken,
    split_answer,
)
from plug_sklearn.generation._running_pools import PooledTokens
from plug_sklearn.generation._stopping import Probabilities, StopRule
from plug_sklearn.generation._writing import Answer

#: Most bytes of states that wait for a joint prediction. A classifier takes about as
#: long for one row as for hundreds.
_MOST_WAITING = 2**22


class BatchPredictions:
    """Runs the probes on the answers of one batch.

    ``request`` is what the hooks read for ``probes``. ``stops`` holds the rule of each
    answer, and ``streams`` those of the probes that read every token. ``report`` is
    called with each token once its probabilities are known; ``numbers`` are the
    positions of the answers among all prompts. If there is a report or a rule, the
    probes predict after each token; otherwise, they predict many tokens together.
    """

    def __init__(
        self,
        probes: Mapping[str, Probe],
        request: Request,
        stops: Sequence[StopRule],
        answers: Sequence[Answer],
        max_new_tokens: int,
        streams: Mapping[str, "TokenStream"],
        tokenizer: PreTrainedTokenizerBase,
        numbers: Sequence[int],
        report: Callable[[ProbedToken], None] | None,
    ) -> None:
        self.probes = probes
        self.places = {n: probe.find_places(request) for n, probe in probes.items()}
        self.stops = stops
        self.answers = answers
        self.streams = streams
        self.tokenizer = tokenizer
        self.numbers = numbers
        self.report = report
        self.decoders = [PieceDecoder(tokenizer) for _ in answers]
        self.waits = not any(stops) and report is None
        # Column 0 holds the probabilities of the prompt.
        self.found = {
            name: np.full(
                (len(answers), 1 + max_new_tokens, len(probe.classes)), np.nan
            )
            for name, probe in probes.items()
        }
        self._waiting: list[tuple[int, NDArray[np.intp]]] = []
        self._states: dict[str, list[NDArray[np.float32]]] = {n: [] for n in probes}
        self._n_bytes = 0

    def add_states(
        self, n_tokens: int, pooled: PooledTokens, rows: NDArray[np.intp]
    ) -> dict[int, str]:
        """Add the pooled tokens after ``n_tokens`` new tokens.

        Returns the reason for each row whose answer ends.
        """
        for name in self.probes:
            states = self._select(name, pooled, rows)
            self._states[name].append(states)
            self._n_bytes += states.nbytes
        self._waiting.append((n_tokens, rows))
        if not self.waits or self._n_bytes > _MOST_WAITING:
            self.flush()
        if n_tokens == 0 or not any(self.stops):
            return {}
        decided = {
            row: self.stops[row].decide(self.show(row, n_tokens))
            for row in rows.tolist()
        }
        return {row: reason for row, reason in decided.items() if reason}

    def report_tokens(self, n_tokens: int, rows: NDArray[np.intp]) -> None:
        """Report the last token of each of these rows."""
        if self.report is None or n_tokens == 0:
            return
        for row in rows.tolist():
            answer, decoder = self.answers[row], self.decoders[row]
            token_id = answer.ids[n_tokens - 1]
            piece = decoder.add(token_id)
            if answer.reason is not None:
                piece += decoder.finish()
            seen = self.show(row, n_tokens).items()
            self.report(
                ProbedToken(
                    prompt=self.numbers[row],
                    position=n_tokens - 1,
                    token_id=token_id,
                    token=piece,
                    probabilities={name: each[-1].copy() for name, each in seen},
                    prompt_probabilities=self.show_prompt(row),
                    stopped_by=answer.reason,
                )
            )

    def finish(self, row: int) -> ProbedText:
        """Make the result of a row whose answer is over."""
        answer = self.answers[row]
        pieces = split_answer(self.tokenizer, answer.ids)
        seen = self.show(row, len(answer.ids))
        return ProbedText(
            text="".join(pieces),
            token_ids=answer.ids,
            tokens=pieces,
            probabilities={name: each.copy() for name, each in seen.items()},
            prompt_probabilities=self.show_prompt(row),
            stopped_by=str(answer.reason),
            classes={name: probe.classes for name, probe in self.probes.items()},
        )

    def flush(self) -> None:
        """Predict all states that wait."""
        if not self._waiting:
            return
        sizes = [len(rows) for _, rows in self._waiting]
        for name in self.probes:
            parts = self._predict(name, sizes)
            for (n_tokens, rows), part in zip(self._waiting, parts, strict=True):
                self.found[name][rows, n_tokens] = part
            self._states[name].clear()
        self._waiting.clear()
        self._n_bytes = 0

    def _predict(self, name: str, sizes: list[int]) -> list[NDArray[np.floating]]:
        """Predict waiting states with one probe; ``sizes`` are numbers of rows."""
        probe, states = self.probes[name], np.concatenate(self._states[name])
        if name not in self.streams:
            return np.split(probe.predict(states), np.cumsum(sizes)[:-1])
        # The stream read the prompts when it was started.
        batches = [rows for n_tokens, rows in self._waiting if n_tokens]
        n_prompts = sizes[0] if len(batches) < len(sizes) else 0
        first = [self.streams[name].current.copy()] if n_prompts else []
        if not batches:
            return first
        activations = probe.shape(states[n_prompts:])
        new = np.concatenate(batches)
        probe.require_finite(activations[self.streams[name].owns_answer[new]])
        return [*first, *self.streams[name].update(activations, batches)]

    def show(self, row: int, n_tokens: int) -> Probabilities:
        """Return the probabilities of a row after each of its first tokens."""
        return {
            name: found[row, 1 : 1 + n_tokens] for name, found in self.found.items()
        }

    def show_prompt(self, row: int) -> Probabilities:
        """Return the probabilities of the prompt of a row."""
        return {name: found[row, 0].copy() for name, found in self.found.items()}

    def _select(
        self, name: str, pooled: PooledTokens, rows: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        """Select states of a probe, (n_rows, n_pairs, n_poolings, hidden_size)."""
        chosen = torch.from_numpy(rows).to(pooled.count.device)
        places = self.places[name]
        states = torch.stack(
            [
                pooled.pool(pooling)[chosen][:, places]
                for pooling in self.probes[name].poolings
            ],
            dim=2,
        )
        found: NDArray[np.float32] = states.float().cpu().numpy()
        found[(pooled.count[chosen] == 0).cpu().numpy()] = np.nan
        return found


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
