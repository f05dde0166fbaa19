"""Pool the tokens of prompts and growing answers that an embedder would pool."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from math import inf

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plug_sklearn.embedding.passes import Capture, PoolsTokens, Request
from plug_sklearn.embedding.prompts import OpenPrompt, TokenSelector

#: The statistic that is kept for each pooling. A mean is a sum divided by the number of
#: tokens.
STATISTICS = {"last": "last", "first": "first", "mean": "sum", "max": "max"}


@dataclass(frozen=True)
class PooledTokens:
    """Pooled states of some tokens of each prompt.

    ``count`` (n_prompts,) is the number of these tokens. ``values`` maps statistics,
    any of "last", "first", "sum" and "max", to tensors (n_prompts, n_pairs,
    hidden_size), where pairs are layers and parts. Values of prompts with a count of 0
    are undefined.
    """

    count: Tensor
    values: dict[str, Tensor]

    def join(self, later: "PooledTokens") -> "PooledTokens":
        """Pool these tokens together with later ones."""
        before, after = self.count > 0, later.count > 0
        values = {}
        for name, mine in self.values.items():
            other = later.values[name]
            if name in ("first", "last"):
                keeps = before if name == "first" else ~after
                values[name] = torch.where(keeps[:, None, None], mine, other)
                continue
            joined = mine + other if name == "sum" else torch.maximum(mine, other)
            one = torch.where(after[:, None, None], other, mine)
            values[name] = torch.where((before & after)[:, None, None], joined, one)
        return PooledTokens(self.count + later.count, values)

    def only(self, mask: Tensor) -> "PooledTokens":
        """Keep the tokens of the chosen prompts, and no tokens of the others."""
        return PooledTokens(self.count * mask, self.values)

    def choose(self, other: "PooledTokens") -> "PooledTokens":
        """Return these tokens, or those of ``other`` for prompts without any here."""
        has = self.count > 0
        values = {
            name: torch.where(has[:, None, None], mine, other.values[name])
            for name, mine in self.values.items()
        }
        return PooledTokens(torch.where(has, self.count, other.count), values)

    def pool(self, pooling: str) -> Tensor:
        """Return the pooled states (n_prompts, n_pairs, hidden_size)."""
        value = self.values[STATISTICS[pooling]]
        if pooling == "mean":
            return value / self.count.clamp(min=1)[:, None, None]
        return value


class MaskedPooler:
    """Pools the tokens of one forward pass under several masks.

    The masks (n_masks, n_prompts, n_tokens) say which tokens each pool includes. The
    statistics are those of :class:`PooledTokens`.
    """

    #: As :class:`~plug_sklearn.embedding.passes.Capture` has it: all tokens are read.
    read = None

    def __init__(self, masks: Tensor, statistics: Collection[str]) -> None:
        self.masks = masks
        self.statistics = list(statistics)
        places = torch.arange(masks.shape[2], device=masks.device)
        self.count = masks.sum(dim=2)
        ahead = torch.where(masks, places, masks.shape[2]).amin(dim=2)
        self.first = ahead.clamp(max=masks.shape[2] - 1)
        self.last = torch.where(masks, places, 0).amax(dim=2)

    def pool(self, states: Tensor) -> list[Tensor]:
        """Pool states of shape (n_prompts * n_tokens, hidden_size).

        Returns a list of one float32 tensor, of shape (n_masks, n_prompts,
        n_statistics, hidden_size).
        """
        _, n_prompts, n_tokens = self.masks.shape
        rows = states.float().reshape(n_prompts, n_tokens, -1)
        by_mask = [self._pool(mask, rows) for mask in range(len(self.masks))]
        return [torch.stack(by_mask)]

    def _pool(self, number: int, rows: Tensor) -> Tensor:
        mask = self.masks[number].to(rows.device)[:, :, None]
        order = torch.arange(len(rows), device=rows.device)
        pooled = []
        for name in self.statistics:
            if name == "sum":
                # Padding may hold any value, also NaN.
                pooled.append(rows.masked_fill(~mask, 0).sum(dim=1))
            elif name == "max":
                pooled.append(rows.masked_fill(~mask, -inf).amax(dim=1))
            else:
                places = self.first if name == "first" else self.last
                pooled.append(rows[order, places[number].to(rows.device)])
        return torch.stack(pooled, dim=1)

    def unpack(self, pooled: Tensor) -> list[PooledTokens]:
        """Return the pooled tokens of each mask.

        ``pooled`` has the shape (n_masks, n_prompts, n_pairs, n_statistics,
        hidden_size).
        """
        return [
            PooledTokens(
                self.count[number].to(pooled.device),
                {
                    name: pooled[number, :, :, place]
                    for place, name in enumerate(self.statistics)
                },
            )
            for number in range(len(self.masks))
        ]


class TokenPooler:
    """Returns the states of a pass that runs one token of each prompt."""

    read = None

    def pool(self, states: Tensor) -> list[Tensor]:
        """Return states of shape (n_prompts, hidden_size) in float32."""
        return [states.float()]


@dataclass(eq=False)
class CountedTokens:
    """Pools the same tokens of prompts and answers that an embedder would pool.

    After each token, the pooled tokens are those that ``TokenSelector.select`` would
    choose from the prompt and the answer so far. Three pools are kept: ``own``, all
    tokens that may be pooled; ``kept``, those of them that the filters keep; and
    ``run``, the trailing run of end-of-text tokens, which is added to ``kept`` if
    another word follows it.

    There is one row for each of ``prompts``.
    """

    selector: TokenSelector
    prompts: Sequence[OpenPrompt]
    poolings: Sequence[str]
    device: torch.device
    own: PooledTokens = field(init=False)
    kept: PooledTokens = field(init=False)
    run: PooledTokens = field(init=False)

    def __post_init__(self) -> None:
        selector = self.selector
        self.statistics = list(dict.fromkeys(STATISTICS[one] for one in self.poolings))
        self.filters = selector.token_filter is not None or selector.eos_id is not None
        self.owns_answer = np.array([prompt.owns_answer for prompt in self.prompts])
        self.in_run = np.zeros(len(self.prompts), dtype=bool)
        self._classes: dict[int, tuple[bool, bool]] = {}

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
        values = dict.fromkeys(self.statistics, states)
        token = PooledTokens(self._send(own).long(), values)
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
        """Return whether the filter drops a token, and whether it is blank."""
        if token not in self._classes:
            ids = np.array([token], dtype=np.int32)
            dropped, blank = self.selector.classify_vocabulary(ids)
            self._classes[token] = bool(dropped[token]), bool(blank[token])
        return self._classes[token]


class PassCapture(Capture):
    """Keeps the pooled states of one forward pass of a model that writes.

    Unlike a pass that only reads, it continues to the head after the last state is
    read.
    """

    def __init__(
        self, request: Request, shape: tuple[int, int], pooler: PoolsTokens
    ) -> None:
        super().__init__(request, shape, pooler, ends_pass=False)
        self.pooled: dict[tuple[int, int], Tensor] = {}

    def put(self, place: tuple[int, int], pooled: list[Tensor]) -> None:
        """Keep the pooled states of a layer and part, of any shape."""
        (self.pooled[place],) = pooled
