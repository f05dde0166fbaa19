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


WAYS = [("last",), ("first", "mean"), tuple(POOLINGS), None]
KEPT = [np.array([0, 2, 3]), np.array([5]), np.array([7, 8])]


def draw_states(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("poolings", WAYS)
def test_kept_tokens_of_each_prompt_are_pooled(poolings: tuple[str, ...]) -> None:
    states = draw_states(9, 5)
    pooler = Pooler(poolings, np.concatenate(KEPT), np.array([0, 3, 4]))
    found = [values.numpy() for values in pooler.pool(torch.from_numpy(states))]
    if poolings is None:
        expected = [states[np.concatenate(KEPT)]]
    else:
        expected = [
            [POOLINGS[name](states[tokens]) for tokens in KEPT] for name in poolings
        ]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_tokens_that_are_read_are_those_that_are_picked() -> None:
    def read(*poolings: str) -> object:
        pooler = Pooler(poolings, np.concatenate(KEPT), np.array([0, 3, 4]))
        return None if pooler.read is None else pooler.read.tolist()

    assert read("last") == [3, 5, 8]
    assert read("last", "first") == [3, 5, 8, 0, 5, 7]
    assert read("last", "mean") is None


@pytest.mark.parametrize("poolings", WAYS)
def test_pooling_over_prefix_and_rest_is_pooling_over_all(
    poolings: tuple[str, ...],
) -> None:
    """For two prompts, two layers and two parts."""
    prefix, rest = draw_states(3, 2, 2, 5), [draw_states(n, 2, 2, 5) for n in (4, 2)]
    whole = [np.concatenate([prefix, one]) for one in rest]

    def pool(tokens: np.ndarray) -> np.ndarray:
        pooled = np.stack([POOLINGS[name](tokens) for name in poolings], axis=2)
        return pooled.reshape(2, -1, 5)

    if poolings is None:
        found, expected = join_pooled(None, prefix, 3, rest, np.array([4, 2])), whole
    else:
        before = pool(prefix)[None]
        after = np.stack([pool(one) for one in rest])
        found = join_pooled(poolings, before, 3, after, np.array([4, 2]))
        expected = [pool(one) for one in whole]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
