import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor

from plug_sklearn.classifiers._token_aggregation import (
    Rule,
    TokenScores,
    pool_tokens,
    weigh_tokens,
)

AGGREGATIONS = ["attention", "max", "mean", "rolling", "softmax"]
LENGTHS, N_MOST, WINDOW, N_RECENT = [1, 2, 7], 9, 3, 2


def draw_scores() -> tuple[TokenScores, Tensor, Rule]:
    """Draw scores of three texts, of two members with three heads, and padding."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(3, N_MOST, 2, 3, 1, generator=generator).double()
    queries = torch.randn(3, N_MOST, 2, 3, generator=generator).double()
    recency = torch.randn(2, 3, N_RECENT, generator=generator).double()
    kept = torch.arange(N_MOST) < torch.tensor(LENGTHS)[:, None]
    return TokenScores(values, queries), kept, Rule("", WINDOW, recency)


def weigh(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def pool_by_hand(
    aggregation: str, values: np.ndarray, queries: np.ndarray, recency: np.ndarray
) -> float:
    """Aggregate the values (n_tokens,) of one head of one text."""
    n_tokens = len(values)
    if aggregation == "attention":
        logits = queries.copy()
        for back in range(min(N_RECENT, n_tokens)):
            logits[n_tokens - 1 - back] += recency[back]
        return float(weigh(logits) @ values)
    if aggregation == "softmax":
        return float(weigh(values) @ values)
    if aggregation == "rolling":
        windows = [slice(max(0, end - WINDOW), end) for end in range(1, n_tokens + 1)]
        return max(float(weigh(queries[own]) @ values[own]) for own in windows)
    return float(values.max() if aggregation == "max" else values.mean())


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_aggregates_are_those_of_a_plain_loop(aggregation: str) -> None:
    scores, kept, drawn = draw_scores()
    assert scores.queries is not None and drawn.recency is not None
    rule = Rule(aggregation, WINDOW, drawn.recency)
    found = pool_tokens(scores, kept, rule, is_soft=False)
    for text, length in enumerate(LENGTHS):
        for member, head in np.ndindex(2, 3):
            expected = pool_by_hand(
                aggregation,
                scores.values[text, :length, member, head, 0].numpy(),
                scores.queries[text, :length, member, head].numpy(),
                drawn.recency[member, head].numpy(),
            )
            assert_allclose(found[text, member, head, 0], expected)


@pytest.mark.parametrize("is_soft", [False, True])
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_padding_changes_nothing(aggregation: str, is_soft: bool) -> None:
    scores, kept, drawn = draw_scores()
    rule = Rule(aggregation, WINDOW, drawn.recency)
    together = pool_tokens(scores, kept, rule, is_soft=is_soft)
    weights = weigh_tokens(scores, kept, rule)
    for text, length in enumerate(LENGTHS):
        own = scores.arrange(lambda part: part[text : text + 1, :length])  # noqa: B023 - used at once
        mask = torch.ones(1, length, dtype=torch.bool)
        alone = pool_tokens(own, mask, rule, is_soft=is_soft)
        assert_allclose(alone[0], together[text])
        assert_allclose(weigh_tokens(own, mask, rule)[0], weights[text, :length])


@pytest.mark.parametrize("aggregation", ["max", "rolling"])
def test_every_token_has_a_gradient_in_training_only(aggregation: str) -> None:
    scores, kept, drawn = draw_scores()
    scores.values.requires_grad_()
    rule = Rule(aggregation, WINDOW, drawn.recency)
    for is_soft in (True, False):
        pooled = pool_tokens(scores, kept, rule, is_soft=is_soft)
        (gradient,) = torch.autograd.grad(pooled.sum(), scores.values)
        assert bool((gradient[2, : LENGTHS[2]] != 0).all()) == is_soft
