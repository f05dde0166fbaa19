import copy

import pytest
import torch
from _families import CHANNELS, FAMILIES, build_model
from _toy import build_toy
from test_anatomy import record_calls
from torch import nn

from plug_sklearn.embedding.anatomy import (
    Anatomy,
    anatomy_of,
    find_blocks,
)


@pytest.fixture
def known(request: pytest.FixtureRequest) -> Anatomy:
    return anatomy_of(*build_model(request.param))


@pytest.fixture
def empty_table(known: Anatomy, monkeypatch: pytest.MonkeyPatch) -> None:
    for table in ("FAMILIES", "VARIANTS"):
        monkeypatch.setattr(f"plug_sklearn.embedding.anatomy._anatomy.{table}", {})


@pytest.mark.usefixtures("empty_table")
@pytest.mark.parametrize(
    ("name", "known"),
    [(n, n) for n in sorted(FAMILIES.keys() - CHANNELS.keys())],
    indirect=["known"],
)
def test_parts_found_are_those_of_the_table(name: str, known: Anatomy) -> None:
    model, stack = build_model(name)
    found = anatomy_of(model, stack)
    assert (found.post_norm, found.reason) == (known.post_norm, None)
    both = [record_calls(model, find_blocks(model, one)) for one in (found, known)]
    for call, expected in zip(*both, strict=True):
        assert torch.equal(call.given, expected.given)
        for part in ("attn", "mlp", "others"):
            tensors = [sum(getattr(one, part)) for one in (call, expected)]
            assert torch.equal(*map(torch.as_tensor, tensors))


@pytest.mark.usefixtures("empty_table")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize(
    ("name", "known"), [(n, n) for n in ("gemma2", "gptj", "llama")], indirect=["known"]
)
def test_parts_are_found_in_any_precision(
    name: str, known: Anatomy, dtype: torch.dtype
) -> None:
    model, stack = build_model(name)
    copy = type(model)(model.config).eval()
    copy.load_state_dict(model.state_dict())
    assert anatomy_of(copy.to(dtype), stack) == known


def test_modules_not_named_for_attention_are_no_parts() -> None:
    assert anatomy_of(build_toy(), None).reason is not None


@pytest.mark.parametrize("mode", ["unlinked", "flat"])
def test_blocks_that_hand_on_no_residual_stream_are_an_error(mode: str) -> None:
    with pytest.raises(ValueError, match=r"modules in 'steps' do not.*register_anat"):
        anatomy_of(build_toy(mode=mode), None)


def test_a_model_without_a_list_of_blocks_is_an_error() -> None:
    model = build_toy()
    model.steps = torch.nn.Sequential(*model.steps)
    with pytest.raises(ValueError, match="must name a model with a list of blocks"):
        anatomy_of(model, None)


def test_list_that_text_runs_through_is_found_beside_a_larger_one() -> None:
    """A tower for images has more and larger blocks, which no text reaches."""
    model = build_toy()
    model.tower = nn.ModuleList(nn.Linear(64, 64) for _ in range(9))
    assert anatomy_of(model, None).blocks == "steps"


def test_lists_that_one_stream_runs_through_are_joined() -> None:
    model = build_toy()
    model.more_steps = copy.deepcopy(model.steps)
    forward = model.forward

    def run_both(**inputs: object) -> object:
        output = forward(**inputs)
        for step in model.more_steps:
            output.last_hidden_state = step(output.last_hidden_state)[0]
        return output

    model.forward = run_both
    assert anatomy_of(model, None).blocks == "steps,more_steps"


@pytest.mark.usefixtures("empty_table")
@pytest.mark.parametrize(
    ("known", "name", "paths", "channels"),
    [
        ("hrm_text", "hrm_text", "L_module.layers,H_module.layers", None),
        ("t5gemma, decoder", "t5gemma, decoder", "decoder.layers", None),
        ("gemma3n, text", "gemma3n, text", "layers", 0),
        ("hy_v4", "hy_v4", "layers", 2),
        ("qwen4_exp", "qwen4_exp", "layers", -1),
    ],
    indirect=["known"],
)
def test_lists_of_families(
    known: Anatomy, name: str, paths: str, channels: int | None
) -> None:
    found = anatomy_of(*build_model(name))
    assert (found.blocks, found.channels) == (paths, channels)


def test_blocks_that_put_tokens_first_are_found() -> None:
    model = build_toy(mode="tokens first")
    found = anatomy_of(model, None)
    assert (found.blocks, found.token_axis) == ("steps", 0)
