from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from _families import FAMILIES, HYBRID, PRE_NORM, build_model, shake_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from plug_sklearn.embedding.models import (
    LoadedModel,
    find_attention_window,
    find_rotary_threshold,
)
from plug_sklearn.embedding.passes import (
    Batch,
    ForwardPass,
    Request,
    SharedPrefix,
    Strategy,
    pad_prompts,
    read_activations,
    read_after_prefixes,
    read_padded,
    read_tries,
)
from plug_sklearn.embedding.prompts import TokenizedPrompts

READING = "plug_sklearn.embedding.passes._reading"

PARTS = ("rs", "attn", "mlp")
#: Each pooling, and what it makes of one text's tokens.
POOL: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "mean": lambda tokens: tokens.mean(axis=0),
    "last": lambda tokens: tokens[-1],
    "max": lambda tokens: tokens.max(axis=0),
    "first": lambda tokens: tokens[0],
}


def make_forwards(name: str) -> tuple[ForwardPass, ForwardPass]:
    """One that keeps every token, and one that pools in four ways."""
    model, stack = build_model(name)
    loaded = LoadedModel(model)
    return (
        ForwardPass(loaded, Request((0, 2), PARTS, None, stack)),
        ForwardPass(loaded, Request((0, 2), PARTS, tuple(POOL), stack)),
    )


def make_forward(name: str, pooling: str = "last") -> ForwardPass:
    model, stack = build_model(name)
    return ForwardPass(LoadedModel(model), Request((0, 2), PARTS, (pooling,), stack))


def join(texts: Sequence[Sequence[int]], keep_first: bool = True) -> TokenizedPrompts:
    return TokenizedPrompts.join(
        [np.array(ids) for ids in texts],
        [(np.arange(len(ids)) > 0) | (keep_first or len(ids) == 1) for ids in texts],
    )


def in_order(batches: object) -> NDArray[np.float32]:
    numbers, states = zip(*batches, strict=True)
    numbers = np.concatenate(numbers)
    assert sorted(numbers) == list(range(len(numbers)))
    return np.concatenate(states)[np.argsort(numbers)]


def relative_error(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def difference(
    name: str,
    prompts: TokenizedPrompts,
    pooling: str,
    pack_nodes: int,
    budget: int = 64,
) -> float:
    forward = make_forward(name, pooling)
    everything = np.arange(len(prompts))
    return relative_error(
        in_order(read_tries(forward, prompts, everything, budget, pack_nodes)),
        in_order(read_padded(forward, prompts, everything, budget)),
    )


BRANCHING = [[5, 6, 7], [5, 6, 8, 9], [5, 6], [10, 11], [5, 12, 13, 14, 15], [10], [16]]
PREFIX = range(3, 35)
WITH_PREFIX = [[*PREFIX, n, n + 1] for n in range(50, 60)]
PACKED = sorted(
    name
    for name, family in PRE_NORM.items()
    if family.stack is None
    and name not in ("bloom", "falcon, alibi", "modernbert", "mpt")
)
PRECEDED = sorted({*PACKED, "bloom", "falcon, alibi", "mpt", *HYBRID} - {"mamba"})


@pytest.mark.parametrize("pooling", ["last", "first", "mean", "max"])
@pytest.mark.parametrize("name", PACKED)
def test_tries_give_what_padded_batches_give(name: str, pooling: str) -> None:
    window = find_attention_window(build_model(name)[0].config)
    texts = [ids for ids in BRANCHING if len(ids) <= window]
    prompts = join(texts, keep_first=False)
    assert difference(name, prompts, pooling, pack_nodes=8) < 2e-6


@pytest.mark.parametrize("name", PRECEDED)
def test_rows_after_a_shared_prefix_give_what_padded_batches_give(name: str) -> None:
    """Also where the prefix is longer than the window, as those of 4 tokens are."""
    texts = [*BRANCHING, *([*PREFIX, *range(50, 51 + n)] for n in (0, 3, 1, 2, 5))]
    prompts = join(texts, keep_first=False)
    forward = make_forward(name, "mean")
    found = in_order(read_after_prefixes(forward, prompts, np.arange(len(texts)), 64))
    expected = in_order(read_padded(forward, prompts, np.arange(len(texts)), 1))
    assert relative_error(found, expected) < 5e-6


def test_cache_whose_rows_are_on_another_axis_serves_several_texts() -> None:
    model, stack = build_model("qwen4_exp")
    request = Request((0, 2), ("rs",), ("last",), stack)
    forward = ForwardPass(LoadedModel(model), request)
    prompts, everything = join(WITH_PREFIX), np.arange(len(WITH_PREFIX))
    found = in_order(read_after_prefixes(forward, prompts, everything, 4096))
    expected = in_order(read_padded(forward, prompts, everything, 1))
    assert relative_error(found, expected) < 5e-6


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen3_next"])
@pytest.mark.parametrize("pooling", ["last", "first", "max"])
def test_rows_after_a_shared_prefix_are_pooled_with_it(name: str, pooling: str) -> None:
    prompts = join(WITH_PREFIX)
    forward, everything = make_forward(name, pooling), np.arange(len(WITH_PREFIX))
    found = in_order(read_after_prefixes(forward, prompts, everything, 64))
    expected = in_order(read_padded(forward, prompts, everything, 64))
    assert relative_error(found, expected) < 5e-6


def test_a_shared_beginning_runs_once() -> None:
    forward, shapes = make_forward("qwen3_next"), []
    read = forward._read

    def spy(batch: Batch, *arguments: object, **options: object) -> object:
        shapes.append(batch.ids.shape)
        return read(batch, *arguments, **options)

    forward._read = spy
    everything = np.arange(len(WITH_PREFIX))
    prompts = join(WITH_PREFIX)
    list(read_after_prefixes(forward, prompts, everything, budget=4096))
    assert shapes == [(1, len(PREFIX)), (len(WITH_PREFIX), 2)]


@pytest.mark.parametrize("pooling", ["last", "first", "mean", "max"])
@pytest.mark.parametrize("keep_first", [True, False])
def test_prefix_gives_what_padded_batches_give(pooling: str, keep_first: bool) -> None:
    prompts = join([*BRANCHING, *WITH_PREFIX], keep_first)
    assert difference("llama", prompts, pooling, pack_nodes=4) < 2e-6


def test_shared_prefix_s_tokens_count_in_the_budget() -> None:
    forward = make_forward("llama")
    run, sizes = forward.run, []

    def spy(batch: Batch, prefix: SharedPrefix | None = None) -> NDArray[np.float32]:
        if prefix is not None:
            n_rows, n_tokens = batch.ids.shape
            sizes.append((n_rows, n_rows * (prefix.n_tokens + n_tokens)))
        return run(batch, prefix)

    forward.run = spy
    everything = np.arange(len(WITH_PREFIX))
    budget = 3 * (len(PREFIX) + 8)
    in_order(read_tries(forward, join(WITH_PREFIX), everything, budget, pack_nodes=2))
    assert max(n_rows for n_rows, _ in sizes) > 1
    assert all(n_tokens <= budget for _, n_tokens in sizes)


@settings(max_examples=25)
@given(
    texts=st.lists(
        st.lists(st.integers(3, 6), min_size=1, max_size=7),
        min_size=1,
        max_size=12,
        unique_by=tuple,
    ),
    pack_nodes=st.integers(1, 20),
    pooling=st.sampled_from(["last", "first", "mean", "max"]),
)
def test_any_texts_in_any_packs_give_the_same(
    texts: list[list[int]], pack_nodes: int, pooling: str
) -> None:
    assert difference("qwen3", join(texts), pooling, pack_nodes, budget=30) < 2e-6


def test_texts_longer_than_the_window_take_no_trie(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paths = {"read_tries": set(), "read_padded": set()}
    for name, seen in paths.items():

        def spy(forward, prompts, numbers, budget, seen=seen) -> list:  # noqa: ANN001 - stands in for a typed function
            seen.update(numbers.tolist())
            return []

        monkeypatch.setattr(f"{READING}.{name}", spy)
    forward = make_forward("mistral")
    window = find_attention_window(forward.loaded.model.config)
    assert window == forward.loaded.model.config.sliding_window
    prompts = join([[5] * window, [5] * (window + 1), [5]])
    list(read_activations(forward, prompts, 64, Strategy.TRIES))
    assert paths == {"read_tries": {0, 2}, "read_padded": {1}}


def test_model_without_a_window_sees_all() -> None:
    assert find_attention_window(build_model("llama")[0].config) == np.inf


def test_single_prompts_take_no_trie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(f"{READING}.pad_tries")
    forward = make_forward("llama")
    prompts = join([[5] * 9, [6] * 9, [7] * 9])
    states = in_order(read_tries(forward, prompts, np.arange(3), 64, pack_nodes=9))
    expected = in_order(read_padded(forward, prompts, np.arange(3), 64))
    assert relative_error(states, expected) < 1e-6


def test_texts_of_equal_length_run_together_where_padding_matters() -> None:
    forward = make_forward("bert")
    prompts = join(BRANCHING)
    shapes = []
    run = forward.run
    forward.run = lambda batch: shapes.append(batch.mask.all()) or run(batch)
    in_order(read_activations(forward, prompts, 64, Strategy.EQUAL_LENGTH))
    assert all(shapes)
    assert len(shapes) == len({len(ids) for ids in BRANCHING})


def test_long_texts_of_a_longrope_model_leave_short_ones_alone() -> None:
    config = FAMILIES["phi3"].config()
    config.rope_parameters = {
        "rope_type": "longrope",
        "rope_theta": 10_000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [4.0] * 4,
        "original_max_position_embeddings": 16,
    }
    config.original_max_position_embeddings = 16
    with torch.random.fork_rng(devices=[]):
        model = transformers.AutoModel.from_config(config)
    shake_weights(model)
    assert find_rotary_threshold(model.config) == 16
    forward = ForwardPass(LoadedModel(model.eval()), Request((0, 2), PARTS, ("mean",)))
    prompts = join([[5, 6, 7], [5, 6, 8, 9], list(range(3, 43)), list(range(3, 19))])
    alone = in_order(read_padded(forward, prompts, np.arange(4), budget=1))
    for way in (Strategy.PADDED, Strategy.TRIES):
        together = in_order(read_activations(forward, prompts, 4096, way))
        assert relative_error(together, alone) < 1e-5
    mixed = [
        forward.run(pad_prompts(prompts, rows, pad_id=0)) for rows in (range(4), [0])
    ]
    assert relative_error(mixed[0][:1], mixed[1]) > 1e-3


@pytest.mark.parametrize("name", ["llama", "phi3", "gemma3, text"])
def test_model_without_longrope_has_no_wall(name: str) -> None:
    assert find_rotary_threshold(build_model(name)[0].config) == np.inf


def test_padded_families_take_no_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(f"{READING}.read_tries")
    prompts = join(BRANCHING)
    states = in_order(
        read_activations(make_forward("bert"), prompts, 64, Strategy.PADDED)
    )
    assert states.shape[:3] == (len(BRANCHING), 2, 3)


@pytest.mark.parametrize("read", [read_padded, read_tries, read_after_prefixes])
@pytest.mark.parametrize("name", ["llama", "gemma2", "qwen3_next"])
@pytest.mark.parametrize("texts", [BRANCHING, WITH_PREFIX])
@pytest.mark.parametrize("keep_first", [True, False])
def test_every_pooling_is_what_a_loop_makes_of_all_tokens(
    name: str, read: Callable[..., Any], texts: list[list[int]], keep_first: bool
) -> None:
    if read is read_tries and name not in PACKED:
        pytest.skip("token tries are not exact for this family")
    prompts, everything = join(texts, keep_first), np.arange(len(texts))
    all_tokens, pooled = make_forwards(name)
    tokens = {
        number: states
        for numbers, batch in read(all_tokens, prompts, everything, 64)
        for number, states in zip(numbers, batch, strict=True)
    }
    found = in_order(read(pooled, prompts, everything, 64))
    assert found.shape == (len(texts), 2, len(PARTS) * len(POOL), found.shape[-1])
    for number in everything:
        assert len(tokens[number]) == len(prompts.kept_of(number))
        expected = np.stack([pool(tokens[number]) for pool in POOL.values()], axis=2)
        expected = expected.reshape(found[number].shape)
        assert relative_error(found[number], expected) < 2e-6
