import numpy as np
import pytest

from plug_sklearn.embedding.passes._preambles import (
    LEAST_PACKS,
    LEAST_PREAMBLE,
    Preamble,
    Run,
    find_runs,
)
from plug_sklearn.embedding.passes._tries import sort_prompts
from plug_sklearn.embedding.prompts._tokenized import TokenizedPrompts

CAPACITY = 8
LONG = list(range(100, 100 + LEAST_PREAMBLE))


def runs_of(texts: list[list[int]], kept: list[np.ndarray] | None = None) -> list[Run]:
    prompts = TokenizedPrompts.join([np.array(ids) for ids in texts], kept)
    order, shared = sort_prompts(prompts)
    return find_runs(prompts, order, shared, CAPACITY)


def endings(n: int, start: int = 1) -> list[list[int]]:
    """Endings of two tokens that share nothing."""
    return [[start + 2 * k, start + 2 * k + 1] for k in range(n)]


def test_long_shared_beginning_is_a_preamble() -> None:
    texts = [LONG + ending for ending in endings(LEAST_PACKS * CAPACITY)]
    assert runs_of(texts) == [Run(slice(0, len(texts)), LEAST_PREAMBLE)]


def test_each_beginning_has_a_run_and_the_others_one_between_them() -> None:
    many = LEAST_PACKS * CAPACITY
    low, high = [1, *LONG], [900, *LONG]
    texts = [
        *(low + ending for ending in endings(many)),
        *endings(5, start=300),
        *(high + ending for ending in endings(many)),
    ]
    n_tokens = LEAST_PREAMBLE + 1
    assert runs_of(texts) == [
        Run(slice(0, many), n_tokens),
        Run(slice(many, many + 5), 0),
        Run(slice(many + 5, 2 * many + 5), n_tokens),
    ]


def test_short_beginning_or_few_texts_are_no_preamble() -> None:
    short = [LONG[:-1] + ending for ending in endings(LEAST_PACKS * CAPACITY)]
    few = [LONG + ending for ending in endings(CAPACITY // 2)]
    for texts in (short, few):
        assert runs_of(texts) == [Run(slice(0, len(texts)), 0)]


def test_text_that_is_the_beginning_itself_keeps_a_token_of_its_own() -> None:
    texts = [[*LONG, 7], *([*LONG, 7, *end] for end in endings(LEAST_PACKS * CAPACITY))]
    assert runs_of(texts)[0].n_shared == LEAST_PREAMBLE


def test_texts_that_pool_the_beginning_differently_share_no_preamble() -> None:
    texts = [LONG + ending for ending in endings(LEAST_PACKS * CAPACITY)]
    kept = [np.arange(len(ids)) >= (row % 2) for row, ids in enumerate(texts)]
    assert runs_of(texts, kept)[0].n_shared == 0


@pytest.mark.parametrize("pooling", ["last", "first", "mean", "max"])
def test_pooling_over_both_is_pooling_over_all(pooling: str) -> None:
    states = np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32)
    pool = {
        "last": lambda s: s[-1],
        "first": lambda s: s[0],
        "mean": lambda s: s.mean(axis=0),
        "max": lambda s: s.max(axis=0),
    }[pooling]
    before, after = pool(states[:3]), pool(states[3:])
    preamble = Preamble(3, [], before[None, None, None], n_kept=3)
    joined = preamble.join(after[None, None, None], pooling, np.array([4]))
    np.testing.assert_allclose(joined[0, 0, 0], pool(states), rtol=1e-5, atol=1e-6)
