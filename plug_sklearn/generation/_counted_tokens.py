"""Track which tokens of a prompt and its growing answer are pooled."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plug_sklearn.embedding.prompts import OpenPrompt, TokenSelector
from plug_sklearn.generation._running_pools import MaskedPooler, PooledTokens


class CountedTokens:
    """Pools the same tokens of prompts and answers that an embedder would pool.

    After each token, the pooled tokens are those that ``TokenSelector.select`` would
    choose from the prompt and the answer so far. Three pools are kept: ``own``, all
    tokens that may be pooled; ``kept``, those of them that the filters keep; and
    ``run``, the trailing run of end-of-text tokens, which is added to ``kept`` if
    another word follows it.

    There is one row for each of ``prompts``. ``statistics`` names what is kept of the
    states, as in :class:`PooledTokens`.
    """

    def __init__(
        self,
        selector: TokenSelector,
        prompts: Sequence[OpenPrompt],
        statistics: list[str],
        device: torch.device,
    ) -> None:
        self.selector = selector
        self.statistics = statistics
        self.device = device
        self.filters = selector.token_filter is not None or selector.eos_id is not None
        self.prompts = prompts
        self.owns_answer = np.array([prompt.owns_answer for prompt in prompts])
        self.in_run = np.zeros(len(prompts), dtype=bool)
        self._classes: dict[int, tuple[bool, bool]] = {}
        self.own: PooledTokens
        self.kept: PooledTokens
        self.run: PooledTokens

    def start(self, n_tokens: int) -> MaskedPooler:
        """Make the pooler of the prompts, left-padded to ``n_tokens`` tokens."""
        masks = np.zeros((3, len(self.prompts), n_tokens), dtype=bool)
        for row, prompt in enumerate(self.prompts):
            for place, token in enumerate(prompt.ids.tolist(), -len(prompt.ids)):
                if self.filters:
                    end = self._extend_run(row, token)
                    if end and not self.in_run[row]:
                        masks[1, row] |= masks[2, row]
                    if not self.in_run[row]:
                        masks[2, row] = False
                    dropped = self._classify(token)[0]
                    group = 2 if self.in_run[row] else 1
                    masks[group, row, place] = prompt.own[place] and not dropped
                masks[0, row, place] = prompt.own[place]
        used = masks if self.filters else masks[:1]
        return MaskedPooler(torch.from_numpy(used).to(self.device), self.statistics)

    def set_prompts(self, pooled: list[PooledTokens]) -> None:
        """Set the pools to the pooled tokens of the prompts."""
        self.own = pooled[0]
        if self.filters:
            self.kept, self.run = pooled[1:]

    def add(
        self, tokens: Sequence[int], counts: NDArray[np.bool_], states: Tensor
    ) -> None:
        """Add one token of each prompt.

        ``counts`` marks the prompts whose answers continue. ``states`` has the shape
        (n_prompts, n_pairs, hidden_size).
        """
        own = counts & self.owns_answer
        mask = self._send(own)
        token = PooledTokens.from_token(mask, states, self.statistics)
        self.own = self.own.join(token)
        if not self.filters:
            return
        was_in_run = self.in_run.copy()
        for row in np.flatnonzero(counts).tolist():
            self._extend_run(row, tokens[row])
        dropped = np.array([self._classify(token)[0] for token in tokens])
        ended = self._send(was_in_run & ~self.in_run)
        self.kept = self.kept.join(self.run.only(ended))
        self.run = self.run.only(~ended)
        in_run = self._send(self.in_run)
        token = token.only(self._send(own & ~dropped))
        self.kept = self.kept.join(token.only(~in_run))
        self.run = self.run.join(token.only(in_run))

    def pooled(self) -> PooledTokens:
        """Return the pooled tokens so far."""
        return self.kept.choose(self.own) if self.filters else self.own

    def _send(self, mask: NDArray[np.bool_]) -> Tensor:
        return torch.from_numpy(mask).to(self.device)

    def _extend_run(self, row: int, token: int) -> bool:
        """Update the end-of-text run of a row; return whether it was in one before."""
        before = bool(self.in_run[row])
        blank = self._classify(token)[1]
        self.in_run[row] = token == self.selector.eos_id or (before and blank)
        return before

    def _classify(self, token: int) -> tuple[bool, bool]:
        """Tell whether the filter drops a token, and whether it is blank."""
        if token not in self._classes:
            ids = np.array([token], dtype=np.int32)
            dropped, blank = self.selector.classify_vocabulary(ids)
            self._classes[token] = bool(dropped[token]), bool(blank[token])
        return self._classes[token]
