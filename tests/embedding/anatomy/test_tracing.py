import pytest
import torch
from _toy import ToyModel, build_toy

from plug_sklearn.embedding.anatomy._tracing import N_TOKENS, Trace, trace_blocks


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
        assert trace.taken.shape == (1, N_TOKENS, 16)
        with torch.no_grad():
            assert torch.equal(step(trace.taken)[0], trace.given)
            assert torch.equal(step.look(trace.taken), outputs_of(trace)["look"])
        # Neither the dropout nor the wider layers within `think` are as large a state.
        assert outputs_of(trace).keys() == {"look", "think", "think.2"}


def test_blocks_that_follow_one_another_say_so() -> None:
    first, second, third = trace_toy(build_toy())
    assert second.follows(first)
    assert third.follows(second)
    assert not third.follows(first)


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
