import pytest
import torch
from numpy.testing import assert_allclose

from plug_sklearn.classifiers._token_aggregation import Rule, TokenScores, pool_tokens
from plug_sklearn.classifiers._token_running import POOLS


@pytest.mark.parametrize("spread", [1.0, 300.0])
@pytest.mark.parametrize("aggregation", sorted(POOLS))
def test_running_aggregates_are_those_of_the_tokens_so_far(
    aggregation: str, spread: float
) -> None:
    # With scores of hundreds, exponentials would overflow.
    generator = torch.Generator().manual_seed(0)
    values = spread * torch.randn(2, 12, 2, 3, 1, generator=generator).double()
    queries = spread * torch.randn(2, 12, 2, 3, generator=generator).double()
    recency = torch.randn(2, 3, 4, generator=generator).double()
    rule = Rule(aggregation, 3, recency)
    pool = POOLS[aggregation](values.new_zeros(2, 2, 3, 1), rule)
    rows = torch.arange(2)
    for place in range(12):
        added = TokenScores(values[:, place], queries[:, place])
        found = pool.add(rows, added)
        so_far = TokenScores(values[:, : place + 1], queries[:, : place + 1])
        kept = torch.ones(2, place + 1, dtype=torch.bool)
        assert_allclose(found, pool_tokens(so_far, kept, rule, is_soft=False))
