import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose

from plug_sklearn.generation._running_pools import (
    STATISTICS,
    MaskedPooler,
    PooledTokens,
)

POOL = {
    "last": lambda states: states[-1],
    "first": lambda states: states[0],
    "mean": lambda states: states.mean(axis=0),
    "max": lambda states: states.max(axis=0),
}
NAMES = list(dict.fromkeys(STATISTICS.values()))


@given(
    hnp.arrays(bool, st.tuples(st.integers(1, 3), st.integers(2, 9))),
    st.integers(1, 8),
    st.integers(0, 99),
)
def test_pools_of_a_beginning_and_single_tokens_are_those_of_all(
    mask: np.ndarray, n_first: int, seed: int
) -> None:
    """Prompts of which no token counts, at first or at all, are among them."""
    n_prompts, n_tokens = mask.shape
    n_first = min(n_first, n_tokens - 1)
    states = np.random.default_rng(seed).normal(size=(n_prompts, n_tokens, 2, 3))
    states = states.astype(np.float32)
    # What is not pooled may be anything.
    states[~mask] = np.nan
    masks = torch.from_numpy(mask[None, :, :n_first])
    pooler = MaskedPooler(masks, NAMES)
    beginning = [
        pooler.pool(torch.from_numpy(states[:, :n_first, pair].reshape(-1, 3)))[0]
        for pair in range(2)
    ]
    (pooled,) = pooler.unpack(torch.stack(beginning, dim=2))
    for token in range(n_first, n_tokens):
        one = PooledTokens.from_token(
            torch.from_numpy(mask[:, token]), torch.from_numpy(states[:, token]), NAMES
        )
        pooled = pooled.join(one)
    assert pooled.count.tolist() == mask.sum(axis=1).tolist()
    for row in np.flatnonzero(mask.any(axis=1)):
        for name, pool in POOL.items():
            found = pooled.pool(name)[row].numpy()
            assert_allclose(found, pool(states[row, mask[row]]), rtol=1e-4, atol=1e-5)
