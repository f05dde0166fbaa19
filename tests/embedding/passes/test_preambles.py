import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache

from plug_sklearn.embedding.passes._preambles import (
    LEAST_SAVED,
    Preamble,
    Run,
    find_runs,
)
from plug_sklearn.embedding.passes._tries import fill_packs, sort_prompts
from plug_sklearn.embedding.prompts._tokenized import TokenizedPrompts

PACK_NODES = 8
LEAST = 16
BUDGET = int(LEAST / LEAST_SAVED)
LONG = list(range(100, 140))


def runs_of(texts: list[list[int]], kept: list[np.ndarray] | None = None) -> list[Run]:
    prompts = TokenizedPrompts.join([np.array(ids) for ids in texts], kept)
    order, shared = sort_prompts(prompts)
    return find_runs(prompts, order, shared, PACK_NODES, BUDGET)


def endings(n: int, start: int = 1) -> list[list[int]]:
    """Endings of two tokens that share nothing."""
    return [[start + 2 * k, start + 2 * k + 1] for k in range(n)]


def test_long_shared_beginning_is_a_preamble() -> None:
    texts = [LONG + ending for ending in endings(5)]
    assert runs_of(texts) == [Run(slice(0, 5), len(LONG))]


def test_short_beginning_of_many_texts_is_a_preamble() -> None:
    texts = [[7, 8, *ending] for ending in endings(40)]
    assert runs_of(texts) == [Run(slice(0, 40), 2)]


def test_each_beginning_has_a_run_and_the_others_one_between_them() -> None:
    texts = [
        *([1, *LONG, *ending] for ending in endings(5)),
        *endings(5, start=300),
        *([900, *LONG, *ending] for ending in endings(5)),
    ]
    n_shared = len(LONG) + 1
    assert runs_of(texts) == [
        Run(slice(0, 5), n_shared),
        Run(slice(5, 10), 0),
        Run(slice(10, 15), n_shared),
    ]


def test_long_beginning_of_some_is_not_lost_to_a_short_one_of_all() -> None:
    some = [[1, *LONG, *ending] for ending in endings(5)]
    others = [[1, 200, *ending] for ending in endings(40)]
    assert runs_of(some + others) == [
        Run(slice(0, 5), len(LONG) + 1),
        Run(slice(5, 45), 2),
    ]


def test_preamble_that_saves_fewer_tokens_than_a_pass_costs_is_none() -> None:
    # The first pack computes the beginning in any case, each further one again.
    n_packs_before, prompts_a_pack = LEAST // 2, 3
    texts = [[7, 8, *e] for e in endings(prompts_a_pack * n_packs_before)]
    assert runs_of(texts) == [Run(slice(0, len(texts)), 0)]


@settings(max_examples=50)
@given(
    texts=st.lists(
        st.lists(st.integers(1, 3), min_size=1, max_size=30),
        min_size=1,
        max_size=40,
        unique_by=tuple,
    )
)
def test_runs_never_compute_more_than_packs_without_preambles(
    texts: list[list[int]],
) -> None:
    prompts = TokenizedPrompts.join([np.array(ids) for ids in texts])
    order, shared = sort_prompts(prompts)
    lengths = prompts.lengths[order]

    def count(first: int, end: int, before: int, pack_nodes: int) -> int:
        common = np.concatenate([[before], shared[first + 1 : end]]) - before
        packs = fill_packs(lengths[first:end] - before, common, pack_nodes)
        return before + sum(pack.n_nodes for pack in packs)

    runs = find_runs(prompts, order, shared, PACK_NODES, BUDGET)
    assert [run.places.start for run in runs] == [
        0,
        *(run.places.stop for run in runs[:-1]),
    ]
    assert runs[-1].places.stop == len(texts)
    for run in runs:
        first, end, n_shared = run.places.start, run.places.stop, run.n_shared
        heads = {tuple(texts[number][:n_shared]) for number in order[first:end]}
        assert len(heads) == 1
        if n_shared:
            assert count(first, end, n_shared, 2 * PACK_NODES) + LEAST <= count(
                first, end, 0, PACK_NODES
            )


def test_text_that_is_the_beginning_itself_keeps_a_token_of_its_own() -> None:
    texts = [[*LONG, 7], *([*LONG, 7, *end] for end in endings(5))]
    assert runs_of(texts)[0].n_shared == len(LONG)


def test_texts_that_pool_the_beginning_differently_share_no_preamble() -> None:
    texts = [LONG + ending for ending in endings(5)]
    kept = [np.arange(len(ids)) >= (row % 2) for row, ids in enumerate(texts)]
    assert runs_of(texts, kept)[0].n_shared == 0


def test_room_of_a_cache_is_counted_in_tokens_of_full_attention() -> None:
    cache = DynamicCache()
    cache.update(torch.zeros(1, 2, 40, 8), torch.zeros(1, 2, 40, 8), 0)
    cache.update(torch.zeros(1, 2, 10, 8), torch.zeros(1, 2, 10, 8), 1)
    # Two layers, of 40 and of 10 tokens, with heads half as wide as the hidden size.
    assert Preamble(40, cache, None, 0).count_room(hidden_size=32) == 13


def test_each_row_has_a_copy_of_the_cache() -> None:
    cache = DynamicCache()
    cache.update(torch.ones(1, 2, 4, 8), torch.ones(1, 2, 4, 8), 0)
    preamble = Preamble(4, cache, None, 0)
    copied = preamble.repeat_cache(3)
    copied.update(torch.zeros(3, 2, 1, 8), torch.zeros(3, 2, 1, 8), 0)
    assert copied.layers[0].keys.shape == (3, 2, 5, 8)
    assert copied.layers[0].keys[:, :, :4].eq(1).all()
    assert cache.layers[0].keys.shape == (1, 2, 4, 8)


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
    preamble = Preamble(3, DynamicCache(), before[None, None, None], n_kept=3)
    joined = preamble.join(after[None, None, None], (pooling,), np.array([4]))
    np.testing.assert_allclose(joined[0, 0, 0], pool(states), rtol=1e-5, atol=1e-6)
