"""Predict texts whose tokens come one by one, with running aggregates."""

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from plug_sklearn.classifiers._layers import average_members
from plug_sklearn.classifiers._token_aggregation import NEVER, Rule, TokenScores
from plug_sklearn.classifiers._token_network import TokenNetwork


class RunningPool(ABC):
    """The aggregate of the tokens so far, for several texts.

    The tensors of its state have one row for each text. ``empty`` is a tensor of zeros
    of shape (n_texts, members, heads, n_outputs).
    """

    @abstractmethod
    def __init__(self, empty: Tensor, rule: Rule) -> None: ...

    @abstractmethod
    def add(self, rows: Tensor, scores: TokenScores) -> Tensor:
        """Add a token to some texts, and return their aggregates.

        ``rows`` (n,) are the texts, and the scores are those of one token of each. The
        result has the shape (n, members, heads, n_outputs).
        """


class RunningMean(RunningPool):
    """The mean of the values."""

    def __init__(self, empty: Tensor, rule: Rule) -> None:
        self.total = empty.clone()
        self.n_tokens = empty.new_zeros(len(empty))

    def add(self, rows: Tensor, scores: TokenScores) -> Tensor:
        """Add a token to some texts."""
        self.total[rows] += scores.values
        self.n_tokens[rows] += 1
        return self.total[rows] / self.n_tokens[rows, None, None, None]


class RunningMax(RunningPool):
    """The largest value."""

    def __init__(self, empty: Tensor, rule: Rule) -> None:
        self.highest = empty + NEVER

    def add(self, rows: Tensor, scores: TokenScores) -> Tensor:
        """Add a token to some texts."""
        self.highest[rows] = torch.maximum(self.highest[rows], scores.values)
        return self.highest[rows]


class RunningSoftmax(RunningPool):
    """The mean of the values, weighted by the exponentials of logits.

    ``highest`` are the largest logits so far. The sums are divided by their
    exponentials.
    """

    def __init__(self, empty: Tensor, rule: Rule) -> None:
        self.highest = empty + NEVER
        self.total, self.weight = empty.clone(), empty.clone()

    def add(self, rows: Tensor, scores: TokenScores) -> Tensor:
        """Add a token to some texts, with the values as logits."""
        self.insert(rows, scores.values, scores.values)
        return self.total[rows] / self.weight[rows]

    def insert(self, rows: Tensor, logits: Tensor, values: Tensor) -> None:
        """Add values (n, members, heads, n_outputs) with these logits."""
        highest = torch.maximum(self.highest[rows], logits)
        before = (self.highest[rows] - highest).exp()
        share = (logits - highest).exp()
        self.total[rows] = self.total[rows] * before + share * values
        self.weight[rows] = self.weight[rows] * before + share
        self.highest[rows] = highest


class RecentTokens:
    """The queries and values of the last tokens of each text, the newest first."""

    def __init__(self, n_recent: int, empty: Tensor) -> None:
        shape = (len(empty), n_recent, *empty.shape[1:])
        self.values = empty.new_zeros(shape)
        self.queries = empty.new_full((*shape[:-1], 1), NEVER)

    def push(self, rows: Tensor, scores: TokenScores) -> tuple[Tensor, Tensor]:
        """Add a token to some texts; return the query and value that are pushed out."""
        assert scores.queries is not None
        left = self.queries[rows, -1], self.values[rows, -1]
        for kept, new in (
            (self.queries, scores.queries[..., None]),
            (self.values, scores.values),
        ):
            kept[rows] = torch.cat([new[:, None], kept[rows, :-1]], dim=1)
        return left


class RunningAttention(RunningPool):
    """The mean weighted by attention, with biases for the last tokens."""

    def __init__(self, empty: Tensor, rule: Rule) -> None:
        assert rule.recency is not None
        self.biases = rule.recency.movedim(-1, 0)[..., None]
        self.recent = RecentTokens(len(self.biases), empty)
        self.older = RunningSoftmax(empty, rule)

    def add(self, rows: Tensor, scores: TokenScores) -> Tensor:
        """Add a token to some texts."""
        queries, values = self.recent.push(rows, scores)
        self.older.insert(rows, queries.expand_as(values), values)
        recent = (self.recent.queries[rows] + self.biases).expand_as(
            self.recent.values[rows]
        )
        older = self.older.highest[rows] + self.older.weight[rows].log()
        shares = torch.cat([recent, older[:, None]], dim=1).softmax(dim=1)
        means = self.older.total[rows] / self.older.weight[rows]
        every = torch.cat([self.recent.values[rows], means[:, None]], dim=1)
        return (shares * every).sum(dim=1)


class RunningWindows(RunningMax):
    """The largest mean of a window, weighted by attention."""

    def __init__(self, empty: Tensor, rule: Rule) -> None:
        super().__init__(empty, rule)
        self.recent = RecentTokens(rule.window, empty)

    def add(self, rows: Tensor, scores: TokenScores) -> Tensor:
        """Add a token to some texts."""
        self.recent.push(rows, scores)
        shares = self.recent.queries[rows].softmax(dim=1)
        means = (shares * self.recent.values[rows]).sum(dim=1)
        return super().add(rows, TokenScores(means))


POOLS: dict[str, type[RunningPool]] = {
    "attention": RunningAttention,
    "max": RunningMax,
    "mean": RunningMean,
    "rolling": RunningWindows,
    "softmax": RunningSoftmax,
}


class TokenStream:
    """Probabilities of ``n_texts`` texts, updated token by token.

    A token takes the same time and memory, however many came before.
    """

    def __init__(self, network: TokenNetwork, n_texts: int) -> None:
        self.network, self.n_texts = network, n_texts
        mean = network.standardise.mean
        self._rows = torch.arange(n_texts, device=mean.device)
        sizes = (n_texts, network.n_members, network.n_heads, network.n_outputs)
        empty = mean.new_zeros(sizes)
        self._pool = POOLS[network.aggregation](empty, network.rule)
        self._mean = RunningMean(empty[:, :, :1], network.rule)

    def update(
        self, token_features: ArrayLike, texts: ArrayLike | None = None
    ) -> NDArray[np.float64]:
        """Add one token to each text, and return the probabilities (n, n_classes).

        ``token_features`` (n, ...) holds one token of each of ``texts`` (n,), which are
        distinct positions; None: all texts.
        """
        features = np.array(token_features, dtype=np.float64, ndmin=1)
        n_features = math.prod(features.shape[1:])
        tokens = torch.from_numpy(features.reshape(len(features), n_features))
        tokens = tokens.to(self._rows.device)
        rows = self._rows
        if texts is not None:
            rows = rows[torch.as_tensor(self._check_texts(texts), device=rows.device)]
        expected = (len(rows), len(self.network.standardise.mean))
        if tokens.shape != expected:
            raise ValueError(
                "The 'token_features' given to update must hold a token of each text, "
                f"{expected[0]} x {expected[1]} numbers. Got an array of shape "
                f"{features.shape} instead."
            )
        if not np.isfinite(features).all():
            raise ValueError(
                "The 'token_features' given to update must not hold NaN or infinity."
            )
        with torch.inference_mode():
            logits = self.add(rows, self.network.score_tokens(tokens))
            probabilities: NDArray[np.float64] = (
                average_members(logits).softmax(dim=1).cpu().numpy()
            )
        return probabilities

    def _check_texts(self, texts: ArrayLike) -> NDArray[np.int64]:
        """Check positions of texts."""
        given = np.asarray(texts)
        is_whole = given.ndim == 1 and given.dtype.kind in "iu"
        if (
            not is_whole
            or not ((given >= 0) & (given < self.n_texts)).all()
            or len(np.unique(given)) < len(given)
        ):
            raise ValueError(
                "The 'texts' given to update must be distinct positions in "
                f"[0, {self.n_texts}). Got {texts!r} instead."
            )
        return given.astype(np.int64)

    def add(self, rows: Tensor, scores: TokenScores) -> Tensor:
        """Add the scores of a token to some texts, and return the members' logits."""
        pooled, direct = self._pool.add(rows, scores).sum(dim=-2), None
        if scores.direct is not None:
            direct = scores.direct.clone()
            mean = self._mean.add(rows, TokenScores(direct[:, :, :1]))
            direct[:, :, :1] = mean
        each = self.network.finish(pooled, direct)
        logits: Tensor = self.network.temperature(self.network.mix(each))
        return logits


def run_along_texts(
    network: TokenNetwork, scores: TokenScores, kept: Tensor
) -> list[Tensor]:
    """Compute the logits after each token of each text, (n_tokens, members, n_classes).

    The scores have the shape (n, n_most, ...); ``kept`` (n, n_most) marks real tokens.
    """
    stream = TokenStream(network, len(kept))
    lengths = kept.sum(dim=1)
    # The lengths ascend, so that the texts that have a next token are the last ones.
    first = torch.searchsorted(lengths, torch.arange(kept.shape[1]), right=True)
    rows = torch.arange(len(kept), device=kept.device)
    steps = []
    for place, start in enumerate(first.tolist()):
        now = scores.arrange(lambda own: own[start:, place])  # noqa: B023 - used at once
        steps.append(stream.add(rows[start:], now))
    return [
        torch.stack([steps[place][row - first[place]] for place in range(length)])
        for row, length in enumerate(lengths.tolist())
    ]
