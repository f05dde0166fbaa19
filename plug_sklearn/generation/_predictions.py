"""Compute the probabilities after each token, and decide which answers end."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from plug_sklearn.embedding.passes import Request
from plug_sklearn.generation._probes import Probe
from plug_sklearn.generation._running_pools import PooledTokens
from plug_sklearn.generation._stopping import Probabilities, StopRule
from plug_sklearn.generation._token_probes import TokenStream
from plug_sklearn.generation._writing import Answer

#: Most bytes of states that wait for a joint prediction. A classifier takes about as
#: long for one row as for hundreds.
_MOST_WAITING = 2**22


class BatchPredictions:
    """Runs the probes on the answers of one batch.

    ``request`` is what the hooks read for ``probes``. ``streams`` holds those of the
    probes that read every token. ``report`` is called with this object, a row and the
    position of a token, once the token's probabilities are known. If there is a report
    or a stop rule, the probes predict after each token; otherwise, they predict many
    tokens together.
    """

    def __init__(
        self,
        probes: Mapping[str, Probe],
        request: Request,
        stop: StopRule,
        answers: Sequence[Answer],
        max_new_tokens: int,
        streams: Mapping[str, TokenStream],
        report: Callable[["BatchPredictions", int, int], None] | None,
    ) -> None:
        self.probes = probes
        self.places = {n: probe.find_places(request) for n, probe in probes.items()}
        self.stop = stop
        self.answers = answers
        self.streams = streams
        self.report = report
        self.waits = not stop and report is None
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
        if n_tokens == 0 or not self.stop:
            return {}
        decided = {row: self.stop.decide(self.show(row, n_tokens)) for row in rows}
        return {int(row): reason for row, reason in decided.items() if reason}

    def report_tokens(self, n_tokens: int, rows: NDArray[np.intp]) -> None:
        """Report the last token of each of these rows."""
        if self.report is not None and n_tokens:
            for row in rows:
                self.report(self, int(row), n_tokens - 1)

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
        return {name: found[row, 0] for name, found in self.found.items()}

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
