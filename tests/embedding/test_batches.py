import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plug_sklearn.embedding._batches import pad_ids, plan_batches, run_batches

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=60)


@given(LENGTHS, st.integers(1, 200))
def test_each_prompt_is_in_one_batch(lengths: list[int], budget: int) -> None:
    planned = np.concatenate(plan_batches(lengths, budget))
    assert sorted(planned) == list(range(len(lengths)))


@given(LENGTHS, st.integers(1, 200))
def test_batches_stay_within_the_budget(lengths: list[int], budget: int) -> None:
    for rows in plan_batches(lengths, budget):
        longest = max(lengths[row] for row in rows)
        assert len(rows) == 1 or len(rows) * longest <= budget


@given(LENGTHS)
def test_longer_prompts_come_first(lengths: list[int]) -> None:
    order = np.concatenate(plan_batches(lengths, 100))
    assert [lengths[row] for row in order] == sorted(lengths, reverse=True)


@given(st.lists(st.lists(st.integers(1, 9), min_size=1), min_size=1, max_size=8))
def test_mask_tells_tokens_from_padding(prompts: list[list[int]]) -> None:
    padded, mask = pad_ids([np.array(ids) for ids in prompts], pad_id=0)
    for row, ids in enumerate(prompts):
        assert padded[row, mask[row] == 1].tolist() == ids
        assert not padded[row, mask[row] == 0].any()


@given(LENGTHS, st.integers(1, 200), st.integers(50, 200))
def test_smaller_batches_run_where_memory_runs_out(
    lengths: list[int], budget: int, memory: int
) -> None:
    def run(rows: np.ndarray) -> int:
        if len(rows) * max(lengths[row] for row in rows) > memory:
            raise RuntimeError("MPS backend out of memory")
        return len(rows)

    done = list(run_batches(lengths, budget, run))
    assert sum(size for _, size in done) == len(lengths)
    seen = np.concatenate([rows for rows, _ in done])
    assert sorted(seen) == list(range(len(lengths)))


def test_one_prompt_too_long_for_memory_is_an_error() -> None:
    def run(rows: np.ndarray) -> int:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        list(run_batches([5, 5], 10, run))


def test_other_errors_pass() -> None:
    def run(rows: np.ndarray) -> int:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        list(run_batches([5, 5], 10, run))
