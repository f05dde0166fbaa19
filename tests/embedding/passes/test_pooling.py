import numpy as np
import pytest
import torch

from plug_sklearn.embedding.passes._pooling import Pooler, join_pooled

POOLINGS = {
    "last": lambda states: states[-1],
    "first": lambda states: states[0],
    "mean": lambda states: states.mean(axis=0),
    "max": lambda states: states.max(axis=0),
}


@pytest.mark.parametrize("pooling", POOLINGS)
def test_kept_tokens_of_each_prompt_are_pooled(pooling: str) -> None:
    states = np.random.default_rng(0).standard_normal((9, 5)).astype(np.float32)
    kept = [np.array([0, 2, 3]), np.array([5]), np.array([7, 8])]
    pooler = Pooler(pooling, np.concatenate(kept), np.array([0, 3, 4]))
    found = pooler.pool(torch.from_numpy(states)).numpy()
    expected = [POOLINGS[pooling](states[tokens]) for tokens in kept]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_over_prefix_and_rest_is_pooling_over_all(pooling: str) -> None:
    states = np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32)
    pool = POOLINGS[pooling]
    prefix, rest = (
        pool(states[:3])[None, None, None],
        pool(states[3:])[None, None, None],
    )
    joined = join_pooled(pooling, prefix, 3, rest, np.array([4]))
    np.testing.assert_allclose(joined[0, 0, 0], pool(states), rtol=1e-5, atol=1e-6)
