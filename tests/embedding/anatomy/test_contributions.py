import pytest
import torch
from _toy import ToyModel, build_toy
from torch import Tensor, nn

from plug_sklearn.embedding.anatomy._contributions import (
    Call,
    Contributions,
    Trace,
    find_contributions,
    trace_blocks,
)


def outputs_of(trace: Trace) -> dict[str, torch.Tensor]:
    return {call.path: call.given for call in trace.calls if call.given is not None}


def trace_toy(model: ToyModel) -> list[Trace]:
    traces: list[Trace] = []
    trace_blocks(model, model.steps, traces.append)
    return traces


def test_a_trace_holds_what_each_block_took_gave_and_computed() -> None:
    model = build_toy()
    traces = trace_toy(model)
    assert len(traces) == 3
    for step, trace in zip(model.steps, traces, strict=True):
        assert trace.taken.shape == (1, 8, 16)
        with torch.no_grad():
            assert torch.equal(step(trace.taken)[0], trace.given)
            assert torch.equal(step.look(trace.taken), outputs_of(trace)["look"])
        # Neither the dropout nor the wider layers within `think` are as large a state.
        assert outputs_of(trace).keys() == {"look", "think", "think.2"}


def test_each_block_takes_what_the_block_before_it_gave() -> None:
    first, second, third = trace_toy(build_toy())
    assert torch.equal(second.taken, first.given)
    assert torch.equal(third.taken, second.given)
    assert not torch.equal(third.taken, first.given)


def test_outputs_of_a_module_that_blocks_share_are_not_mixed_up() -> None:
    model = build_toy()
    for step in model.steps:
        step.look = model.steps[0].look
    for trace in trace_toy(model):
        outputs = outputs_of(trace)
        total = trace.taken + outputs["look"] + outputs["think"]
        assert torch.allclose(total, trace.given, atol=1e-6)


def test_a_module_that_runs_twice_in_a_block_is_left_out() -> None:
    model = build_toy()
    model.steps[0].think = model.steps[0].look
    assert "look" not in outputs_of(trace_toy(model)[0])


def test_tracing_leaves_no_hook_no_gradient_and_every_mode_as_it_was() -> None:
    model = build_toy()
    model.steps[1].train()
    modes = [module.training for module in model.modules()]
    traces = trace_toy(model)
    assert [module.training for module in model.modules()] == modes
    assert True in modes
    assert False in modes
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert all(weight.grad is None for weight in model.parameters())
    assert not any(trace.given.requires_grad for trace in traces)


def test_tracing_switches_dropout_off_and_leaves_the_global_generator() -> None:
    model = build_toy()
    model.train()
    state = torch.random.get_rng_state()
    first, second = trace_toy(model), trace_toy(model)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first[2].given, second[2].given)


def test_a_model_that_does_not_run_on_tokens_is_an_error_and_left_clean() -> None:
    model = build_toy(mode="refuses").train()
    with pytest.raises(ValueError, match=r"ToyModel raised RuntimeError\('no images"):
        trace_toy(model)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())


def test_special_tokens_are_not_drawn() -> None:
    model = build_toy()
    model.config.image_token_id = 5
    model.config.eos_token_id = list(range(6, 97))
    drawn: list[torch.Tensor] = []
    handle = model.words.register_forward_hook(
        lambda _, args, __: drawn.append(args[0])
    )
    trace_toy(model)
    handle.remove()
    assert set(drawn[0].flatten().tolist()) <= {0, 1, 2, 3, 4, 97, 98}


class Block(nn.Module):
    """Adds what two linear layers give to its input, in one of several ways."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.multiplier = kind, 0.37
        self.norm, self.last_norm = nn.LayerNorm(16), nn.LayerNorm(16)
        self.attn, self.mlp = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, states: Tensor) -> Tensor:
        """Map states of shape (texts, tokens, 16)."""
        if self.kind == "parallel":
            return states + self.attn(states) + self.mlp(self.norm(states))
        scale = {"scaled": self.multiplier, "divided": 1 / self.multiplier}
        factor = scale.get(self.kind, 1.0)
        added = states + factor * self.attn(states)
        if self.kind == "post-norm":
            added = self.norm(added)
            return self.last_norm(added + self.mlp(added))
        added = added + factor * self.mlp(self.norm(added))
        return 0.5 * added if self.kind == "shrunk" else added


def trace_block(kind: str) -> Trace:
    torch.manual_seed(0)
    block, calls = Block(kind), []
    for path, module in block.named_children():
        module.register_forward_hook(
            lambda module, args, output, path=path: calls.append(
                Call(path, type(module).__name__, args[0].clone(), output.clone())
            )
        )
    states = torch.randn(1, 8, 16)
    with torch.no_grad():
        return Trace(block, states, block(states), calls)


@pytest.mark.parametrize(
    ("kind", "scales", "rescaled"),
    [
        ("sequential", {}, False),
        ("parallel", {}, False),
        ("post-norm", {}, True),
        ("shrunk", {}, True),
        ("scaled", dict.fromkeys(("attn", "mlp"), "multiplier"), False),
        ("divided", dict.fromkeys(("attn", "mlp"), "1/multiplier"), False),
    ],
)
def test_what_adds_to_the_stream_is_found(
    kind: str, scales: dict[str, str], rescaled: bool
) -> None:
    with torch.random.fork_rng(devices=[]):
        found = find_contributions(trace_block(kind))
    assert found == Contributions(("attn", "mlp"), scales, rescaled)


def test_sum_that_is_off_by_more_than_rounding_is_not_found() -> None:
    with torch.random.fork_rng(devices=[]):
        trace = trace_block("sequential")
    trace.given += 1e-3 * trace.given.abs()
    assert find_contributions(trace) is None
