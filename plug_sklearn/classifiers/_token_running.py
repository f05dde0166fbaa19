"""Aggregate the scores of tokens that come one by one, with running sums."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from plug_sklearn.classifiers._token_aggregation import NEVER, Rule, TokenScores


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


class RunningWindows(RunningPool):
    """The largest mean of a window, weighted by attention."""

    def __init__(self, empty: Tensor, rule: Rule) -> None:
        self.recent = RecentTokens(rule.window, empty)
        self.highest = empty + NEVER

    def add(self, rows: Tensor, scores: TokenScores) -> Tensor:
        """Add a token to some texts."""
        self.recent.push(rows, scores)
        shares = self.recent.queries[rows].softmax(dim=1)
        found = (shares * self.recent.values[rows]).sum(dim=1)
        self.highest[rows] = torch.maximum(self.highest[rows], found)
        return self.highest[rows]


POOLS: dict[str, type[RunningPool]] = {
    "attention": RunningAttention,
    "max": RunningMax,
    "mean": RunningMean,
    "rolling": RunningWindows,
    "softmax": RunningSoftmax,
}
