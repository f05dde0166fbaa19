import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plug_sklearn.embedding.passes import pad_prompts
from plug_sklearn.embedding.passes._batching import (
    LEAST_FILLING,
    MOST_PADDING,
    pad_tries,
    plan_batches,
    run_batches,
)
from plug_sklearn.embedding.passes._prefixes import build_trie
from plug_sklearn.embedding.prompts import TokenizedPrompts

SIZES = st.lists(st.integers(1, 50), min_size=1, max_size=60)


@given(SIZES, st.integers(1, 200))
def test_each_pack_is_in_one_batch(sizes: list[int], budget: int) -> None:
    planned = np.concatenate(plan_batches(sizes, budget))
    assert sorted(planned) == list(range(len(sizes)))


@given(SIZES, st.integers(1, 200))
def test_batches_stay_within_the_budget(sizes: list[int], budget: int) -> None:
    for packs in plan_batches(sizes, budget):
        largest = max(sizes[pack] for pack in packs)
        assert len(packs) == 1 or len(packs) * largest <= budget


@given(SIZES, st.integers(1, 2000))
def test_batches_of_some_size_hold_little_padding(
    sizes: list[int], budget: int
) -> None:
    for packs in plan_batches(sizes, budget):
        tokens = [sizes[pack] for pack in packs]
        # The last pack is judged with those before it.
        if sum(tokens[:-1]) >= budget * LEAST_FILLING:
            assert sum(tokens) >= (1 - MOST_PADDING) * len(tokens) * max(tokens)


def test_many_texts_of_mixed_length_are_padded_by_less_than_5_percent() -> None:
    sizes = np.random.default_rng(0).integers(4, 60, size=3000).tolist()
    padded = sum(
        len(packs) * max(sizes[pack] for pack in packs)
        for packs in plan_batches(sizes, 2048)
    )
    assert sum(sizes) > 0.95 * padded


@given(SIZES)
def test_larger_packs_come_first(sizes: list[int]) -> None:
    order = np.concatenate(plan_batches(sizes, 100))
    assert [sizes[pack] for pack in order] == sorted(sizes, reverse=True)


@given(st.lists(st.lists(st.integers(1, 9), min_size=1), min_size=1, max_size=8))
def test_rows_hold_their_prompts_and_padding(prompts: list[list[int]]) -> None:
    tokenized = TokenizedPrompts.join([np.array(ids) for ids in prompts])
    batch = pad_prompts(tokenized, range(len(prompts)), pad_id=0)
    for row, ids in enumerate(prompts):
        assert batch.ids[row, batch.mask[row]].tolist() == ids
        assert not batch.ids[row, ~batch.mask[row]].any()
    pooled = np.split(batch.ids.ravel()[batch.kept], batch.offsets[1:])
    assert [tokens.tolist() for tokens in pooled] == prompts


def test_nodes_of_a_trie_see_their_ancestors_and_themselves() -> None:
    prompts = [[1, 2], [1, 2, 3], [1, 4], [5]]
    trie = build_trie([np.array(ids) for ids in prompts], [0, 2, 1, 0])
    other = build_trie([np.array([7])], [0])
    single = TokenizedPrompts.join([*map(np.array, prompts), np.array([7])])
    batch = pad_tries(single, [(range(4), trie), ([4], other)], pad_id=0)
    assert batch.ids.tolist() == [[1, 2, 3, 4, 5], [7, 0, 0, 0, 0]]
    assert batch.positions is not None
    assert batch.positions[0].tolist() == [0, 1, 2, 1, 0]
    seen = [batch.ids[0, row].tolist() for row in batch.mask[0]]
    assert seen == [[1], [1, 2], [1, 2, 3], [1, 4], [5]]
    assert (batch.mask[1] == np.eye(5, dtype=bool)).all()
    pooled = np.split(batch.ids.ravel()[batch.kept], batch.offsets[1:])
    assert [ids.tolist() for ids in pooled] == [*prompts, [7]]


@given(SIZES, st.integers(1, 200), st.integers(50, 200))
def test_smaller_batches_run_where_memory_runs_out(
    sizes: list[int], budget: int, memory: int
) -> None:
    def run(packs: np.ndarray) -> int:
        if len(packs) * max(sizes[pack] for pack in packs) > memory:
            raise RuntimeError("MPS backend out of memory")
        return len(packs)

    done = list(run_batches(sizes, budget, run))
    assert sum(size for _, size in done) == len(sizes)
    seen = np.concatenate([packs for packs, _ in done])
    assert sorted(seen) == list(range(len(sizes)))


def test_one_pack_too_large_for_memory_is_an_error() -> None:
    def run(packs: np.ndarray) -> int:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        list(run_batches([5, 5], 10, run))


def test_other_errors_pass() -> None:
    def run(packs: np.ndarray) -> int:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        list(run_batches([5, 5], 10, run))
