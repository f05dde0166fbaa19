"""Aggregate the scores of the tokens of a text into scores of the text.

``n`` texts are padded to ``n_most`` tokens; ``kept`` (n, n_most) marks real tokens.

References
----------
EleutherAI, "Attention probes", 2025, for ``"attention"``. McKenzie et al., "Detecting
high-stakes interactions with activation probes", 2025, arXiv 2506.10805, for
``"softmax"`` and ``"attention"``. Kramár et al., "Building production-ready probes",
2026, arXiv 2601.11516, for ``"max"`` and ``"rolling"``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

#: Factor of the scores in the soft maximum of training.
SHARPNESS = 2.0
#: Score of padding. It is finite because the softmax of -inf has no gradient.
NEVER = -1e30


class TokenScores(NamedTuple):
    """The scores of each token.

    ``values`` (..., members, heads, n_outputs) are aggregated. ``queries`` (...,
    members, heads) are the logarithms of attention weights, up to a constant, or None
    if heads have no queries. ``direct`` (..., members, 2, n_outputs), or None, are the
    outputs of the linear probes of the mean of all tokens and of the last token.
    """

    values: Tensor
    queries: Tensor | None = None
    direct: Tensor | None = None

    def arrange(self, take: Callable[[Tensor], Tensor]) -> "TokenScores":
        """Apply a function to each tensor."""
        return TokenScores(
            take(self.values),
            None if self.queries is None else take(self.queries),
            None if self.direct is None else take(self.direct),
        )


@dataclass(frozen=True)
class Rule:
    """How scores are aggregated.

    ``recency`` (members, heads, n_recent) are biases of the queries of the last tokens,
    from the last one backwards. ``window`` is the length of the windows of "rolling".
    """

    aggregation: str
    window: int = 1
    recency: Tensor | None = None


def pool_tokens(
    scores: TokenScores, kept: Tensor, rule: Rule, *, is_soft: bool
) -> Tensor:
    """Aggregate values over tokens: (n, members, heads, n_outputs).

    In training the maximum is soft, so that tokens other than the strongest have
    gradients.
    """
    if rule.aggregation in ("max", "rolling"):
        found = _list_candidates(scores, kept, rule)
        if not is_soft:
            return found.amax(dim=1)
        return ((SHARPNESS * found).softmax(dim=1) * found.clamp(min=-1e15)).sum(dim=1)
    return (_share_tokens(scores, kept, rule) * scores.values).sum(dim=1)


def weigh_tokens(scores: TokenScores, kept: Tensor, rule: Rule) -> Tensor:
    """Compute the weight of each token, averaged over members and heads: (n, n_most).

    The weights of a text sum to 1. A maximum gives weight to its token or window only.
    """
    if rule.aggregation not in ("max", "rolling"):
        shares = _share_tokens(scores, kept, rule)
        return shares.expand(*scores.values.shape).flatten(start_dim=2).mean(dim=2)
    best = _list_candidates(scores, kept, rule).argmax(dim=1).flatten(start_dim=1)
    if rule.aggregation == "max":
        places, shares = best[..., None], torch.ones_like(best[..., None])
    else:
        shares = _share_windows(scores, rule.window)
        shares = shares.expand(*scores.values.shape, -1).flatten(2, -2)
        at_best = best[:, None, :, None].expand(-1, 1, -1, rule.window)
        shares = shares.gather(1, at_best)[:, 0]
        steps = torch.arange(1 - rule.window, 1, device=best.device)
        places = (best[..., None] + steps).clamp(min=0)
    weights = scores.values.new_zeros(kept.shape)
    weights.scatter_add_(1, places.flatten(1), shares.flatten(1).to(weights.dtype))
    return weights / best.shape[1]


def _share_tokens(scores: TokenScores, kept: Tensor, rule: Rule) -> Tensor:
    """Compute weights of the tokens, (n, n_most, members, heads, n_outputs or 1)."""
    mask = kept[:, :, None, None, None]
    if rule.aggregation == "mean":
        return mask / mask.sum(dim=1, keepdim=True).to(scores.values.dtype)
    # A softmax along the last axis is several times faster.
    hidden = ~kept[:, None, None, None]
    if rule.aggregation == "softmax":
        logits = scores.values.movedim(1, -1)
    else:
        assert scores.queries is not None and rule.recency is not None
        bias = _locate_recent(kept, rule.recency.shape[2]).to(rule.recency.dtype)
        bias = bias @ rule.recency.flatten(0, 1).T
        queries = scores.queries + bias.view(scores.queries.shape)
        logits = queries.movedim(1, -1)[..., None, :]
    return logits.masked_fill(hidden, NEVER).softmax(dim=-1).movedim(-1, 1)


def _locate_recent(kept: Tensor, n_recent: int) -> Tensor:
    """Mark the last tokens: (n, n_most, n_recent), from the last one backwards."""
    after = kept.sum(dim=1, keepdim=True) - kept.cumsum(dim=1)
    recent = torch.arange(n_recent, device=kept.device)
    return (after[..., None] == recent) & kept[..., None]


def _list_candidates(scores: TokenScores, kept: Tensor, rule: Rule) -> Tensor:
    """List the values to take the maximum of: at each token, or of its window."""
    found = scores.values
    if rule.aggregation == "rolling":
        values = _unfold(found, rule.window, 0.0)
        found = (_share_windows(scores, rule.window) * values).sum(dim=-1)
    return found.masked_fill(~kept[:, :, None, None, None], NEVER)


def _share_windows(scores: TokenScores, window: int) -> Tensor:
    """Weigh the window ending at each token: (n, n_most, members, heads, 1, window)."""
    assert scores.queries is not None
    return _unfold(scores.queries, window, NEVER).softmax(dim=-1)[..., None, :]


def _unfold(values: Tensor, window: int, fill: float) -> Tensor:
    """Return the window that ends at each token: (n, n_most, ..., window)."""
    before = [0, 0] * (values.ndim - 2) + [window - 1, 0]
    return F.pad(values, before, value=fill).unfold(1, window, 1)
