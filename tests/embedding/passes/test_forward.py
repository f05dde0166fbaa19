from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pytest
import torch
from _families import (
    CHANNELS,
    FAMILIES,
    HIDDEN_SIZE,
    POST_NORM,
    build_model,
    count_block_calls,
    run_tokens,
)
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from plug_sklearn.embedding.anatomy import anatomy_of, find_blocks
from plug_sklearn.embedding.models import LoadedModel
from plug_sklearn.embedding.passes import (
    ForwardPass,
    Request,
    choose_strategy,
    pad_prompts,
)
from plug_sklearn.embedding.prompts import TokenizedPrompts

LENGTHS = (7, 3, 5, 1, 4)
#: Between two residual streams are more than attention and MLP: norms, channels, what
#: Gemma 4 adds for each layer, and what HRM adds between two rounds.
INTERRUPTED = {*POST_NORM, *CHANNELS, "gemma4, text", "hrm_text"}


@cache
def draw_prompts(name: str) -> TokenizedPrompts:
    """Prompts of several lengths, with all tokens kept but the first of several."""
    generator = np.random.default_rng(2)
    ids, kept = [], []
    for length in LENGTHS:
        drawn = generator.integers(3, 95, size=length)
        if FAMILIES[name].stack == "decoder":
            drawn = np.concatenate([[0], drawn])
        ids.append(drawn)
        kept.append(np.arange(len(drawn)) >= min(len(drawn) - 1, 1))
    return TokenizedPrompts.join(ids, kept)


def parts_of(name: str) -> tuple[str, ...]:
    """The parts that a family has."""
    known = anatomy_of(*build_model(name)).reason is None
    return ("rs", "attn", "mlp") if known else ("rs",)


def read(
    name: str,
    prompts: TokenizedPrompts,
    pooling: str = "mean",
    rows: Sequence[int] | None = None,
    **request: object,
) -> NDArray[np.float32]:
    """Read prompts in one padded batch, by default all layers and parts."""
    model, stack = build_model(name)
    asked = {"layers": tuple(range(count_block_calls(name))), "parts": parts_of(name)}
    forward = ForwardPass(
        LoadedModel(model),
        Request(poolings=(pooling,), stack=stack, **{**asked, **request}),
    )
    rows = range(len(prompts)) if rows is None else rows
    return forward.run(pad_prompts(prompts, rows, forward.pad_id))


def one_prompt(ids: Sequence[int], kept: Sequence[int]) -> TokenizedPrompts:
    return TokenizedPrompts.join([np.array(ids)], [np.isin(np.arange(len(ids)), kept)])


def count_hooks(model: torch.nn.Module) -> int:
    """Count hooks; transformers puts some of its own on models."""
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks)
        for module in model.modules()
    )


def relative_error(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def batch_error(name: str, pooling: str) -> float:
    prompts = draw_prompts(name)
    alone = np.concatenate(
        [read(name, prompts, pooling, [row]) for row in range(len(prompts))]
    )
    return relative_error(read(name, prompts, pooling), alone)


def identity_error(name: str) -> float:
    states = read(name, draw_prompts(name))
    change = states[:, 1:, 0] - states[:, :-1, 0]
    added = states[:, 1:, 1:].sum(axis=2)
    return float(np.linalg.norm(change - added) / np.linalg.norm(states[:, 1:, 0]))


@pytest.mark.parametrize("pooling", ["last", "first", "mean", "max"])
@pytest.mark.parametrize("name", FAMILIES)
def test_batch_of_one_equals_any_batch(name: str, pooling: str) -> None:
    assert batch_error(name, pooling) < 1e-5


@pytest.mark.parametrize("name", FAMILIES)
def test_order_and_duplicates_are_immaterial(name: str) -> None:
    prompts = draw_prompts(name)
    rows = [4, 2, 2, 0, 1, 3, 4]
    shuffled = read(name, prompts, rows=rows)
    assert relative_error(shuffled, read(name, prompts)[rows]) < 1e-5


@pytest.mark.parametrize("name", FAMILIES)
def test_hooks_are_gone_and_the_model_puts_out_what_it_did(name: str) -> None:
    model, _ = build_model(name)
    before, n_hooks = run_tokens(model)[0], count_hooks(model)
    read(name, draw_prompts(name), "last")
    assert count_hooks(model) == n_hooks
    assert torch.equal(run_tokens(model)[0], before)


@pytest.mark.parametrize("name", FAMILIES)
def test_pass_ends_at_the_deepest_layer_asked_for(name: str) -> None:
    model, stack = build_model(name)
    ran: list[int] = []
    handles = [
        block.module.register_forward_pre_hook(lambda *_: ran.append(1))
        for block in find_blocks(model, anatomy_of(model, stack))
    ]
    states = read(name, draw_prompts(name), layers=(0,))
    for handle in handles:
        handle.remove()
    assert len(ran) == 1
    assert relative_error(states, read(name, draw_prompts(name))[:, :1]) < 1e-6


@pytest.mark.parametrize("name", CHANNELS)
def test_stream_of_several_channels_is_read_as_their_mean(name: str) -> None:
    """And what mixer and MLP hand to the channels, by plain hooks, text by text."""
    model, _ = build_model(name)
    prompts, n_layers = draw_prompts(name), count_block_calls(name)
    sandwich = name == "gemma3n, text"
    paths = ("", "self_attn", "linear_attn", "mlp")
    if sandwich:
        paths = ("", "post_attention_layernorm", "post_feedforward_layernorm")
    expected = np.empty((len(prompts), n_layers, 3, HIDDEN_SIZE), dtype=np.float32)
    for row in range(len(prompts)):
        heard: list[torch.Tensor] = []
        handles = [
            layer.get_submodule(path).register_forward_hook(
                lambda _, __, output, heard=heard: heard.append(
                    output[0] if isinstance(output, tuple) else output
                )
            )
            for layer in model.layers
            for path in paths
            if not path or hasattr(layer, path)
        ]
        ids = torch.from_numpy(prompts.ids_of(row).astype(np.int64))[None]
        with torch.no_grad():
            model(input_ids=ids)
        for handle in handles:
            handle.remove()
        for layer in range(n_layers):
            # A block puts out what it does after its parts.
            attn, mlp, states = heard[3 * layer : 3 * layer + 3]
            if name == "qwen4_exp":
                states = states.unflatten(-1, (-1, HIDDEN_SIZE))
            channels = states if sandwich else states.movedim(2, 0)
            assert len(channels) > 1
            for place, states in enumerate((channels.mean(dim=0), attn, mlp)):
                expected[row, layer, place] = states[0, -1]
    found = read(name, prompts, "last")
    assert relative_error(found, expected) < 1e-5


def test_layers_and_parts_come_in_the_order_asked_for() -> None:
    prompts = draw_prompts("llama")
    asked = read("llama", prompts, layers=(2, 0), parts=("mlp", "rs"))
    everything = read("llama", prompts, layers=(0, 1, 2), parts=("rs", "attn", "mlp"))
    assert_array_equal(asked, everything[:, [2, 0]][:, :, [2, 0]])


def test_pooling_takes_in_the_kept_positions_only() -> None:
    ids = [5, 6, 7, 8]
    by_position = np.concatenate(
        [read("llama", one_prompt(ids, [at]), "last") for at in (1, 2)]
    )
    for pooling, expected in {
        "first": by_position[0],
        "last": by_position[1],
        "mean": by_position.mean(axis=0),
        "max": by_position.max(axis=0),
    }.items():
        (found,) = read("llama", one_prompt(ids, [1, 2]), pooling)
        assert relative_error(found, expected) < 1e-6
        (whole,) = read("llama", one_prompt(ids, range(4)), pooling)
        assert relative_error(whole, expected) > 1e-3


@pytest.mark.parametrize("name", FAMILIES)
def test_mlp_of_the_pooled_tokens_alone_is_the_same(name: str) -> None:
    """Picking a token narrows the deepest MLP to it; a mean over it does not."""
    prompts = draw_prompts(name)
    last = np.zeros_like(prompts.kept)
    last[prompts.starts[1:] - 1] = True
    only_last = TokenizedPrompts(prompts.ids, last, prompts.starts)
    picked = read(name, prompts, "last")
    assert relative_error(picked, read(name, only_last, "mean")) < 1e-6


def test_error_within_a_pass_leaves_no_hook() -> None:
    model, _ = build_model("llama")
    n_hooks = count_hooks(model)
    with pytest.raises(IndexError):
        read("llama", one_prompt([10_000], [0]))
    assert count_hooks(model) == n_hooks


def test_every_family_is_read_as_the_table_says(tell: Callable[..., None]) -> None:
    """Tell the table: family, parts, identity error, batch error, way."""
    header = f"{'family':<24}{'parts':<14}{'identity error':>16}{'batch error':>12}"
    lines = [f"{header}  way"]
    for name in FAMILIES:
        parts = parts_of(name)
        batch = batch_error(name, "mean")
        identity = "no such identity"
        if name not in INTERRUPTED and len(parts) == 3:
            error = identity_error(name)
            assert error < 1e-5
            identity = f"{error:.1e}"
        model, stack = build_model(name)
        request = Request((0,), ("rs",), ("last",), stack)
        way = choose_strategy(ForwardPass(LoadedModel(model), request)).strategy.value
        told = f"{name:<24}{' '.join(parts):<14}{identity:>16}{batch:>12.1e}  {way}"
        lines.append(told)
    tell(*lines)
    assert HIDDEN_SIZE == read("llama", draw_prompts("llama")).shape[-1]
