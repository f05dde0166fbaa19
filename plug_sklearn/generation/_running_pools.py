"""Pool the states of the tokens so far, for several prompts at once."""

from collections.abc import Collection
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from plug_sklearn.embedding.passes import Capture, PoolsTokens, Request

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

    @classmethod
    def from_token(
        cls, mask: Tensor, states: Tensor, statistics: Collection[str]
    ) -> "PooledTokens":
        """Pool one token of each prompt for which the mask (n_prompts,) is True.

        The states have the shape (n_prompts, n_pairs, hidden_size).
        """
        return cls(mask.long(), dict.fromkeys(statistics, states))

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
        """Pool states of shape (n_prompts * n_tokens, units).

        Returns a list of one float32 tensor (n_masks, n_prompts, n_statistics, units).
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

        ``pooled`` has the shape (n_masks, n_prompts, n_pairs, n_statistics, units).
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
        """Return states of shape (n_prompts, units) in float32."""
        return [states.float()]


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
