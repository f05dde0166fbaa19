import copy
from types import SimpleNamespace

import pytest
import torch
from _families import build_model
from _toy import build_toy
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

from plug_sklearn.embedding.anatomy import (
    find_input_device,
    first_tensor,
    restore_state,
)


def replace_module(model: nn.Module) -> None:
    model.steps[0].look = copy.deepcopy(model.steps[0].look)


def write_buffer(model: nn.Module) -> None:
    model.steps[1].counts.add_(1)


def replace_buffer(model: nn.Module) -> None:
    model.steps[1].counts = torch.ones(3)


def set_attribute(model: nn.Module) -> None:
    model.steps[2].mode = "full"


def fill_list(model: nn.Module) -> None:
    model.seen.append(1)


def change_settings(model: nn.Module) -> None:
    model.config.mode = "other"


CHANGES = [
    replace_module,
    write_buffer,
    replace_buffer,
    set_attribute,
    fill_list,
    change_settings,
]


def state_of(model: nn.Module) -> tuple[object, ...]:
    return (
        id(model.steps[0].look),
        model.steps[1].counts.tolist(),
        hasattr(model.steps[2], "mode"),
        list(model.seen),
        model.config.mode,
    )


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_a_pass_changes_is_noticed_and_put_back(change: object) -> None:
    model = build_toy()
    model.steps[1].register_buffer("counts", torch.zeros(3))
    model.seen = []
    before = state_of(model)
    with restore_state(model) as has_changed:
        assert not has_changed()
        change(model)
        assert has_changed()
        assert state_of(model) != before
    assert state_of(model) == before


def test_state_is_put_back_after_an_error_too() -> None:
    model = build_toy()
    with pytest.raises(RuntimeError, match="halfway"), restore_state(model):
        model.config.mode = "other"
        raise RuntimeError("halfway")
    assert model.config.mode == "sound"


STATES = torch.arange(6.0).reshape(1, 2, 3)


@pytest.mark.parametrize(
    "output",
    [STATES, (STATES, None), [STATES], BaseModelOutput(last_hidden_state=STATES)],
)
def test_first_tensor_is_the_output_or_its_first_item(output: object) -> None:
    assert first_tensor(output) is STATES


@pytest.mark.parametrize("output", [None, (None, STATES), {"states": STATES}])
def test_an_output_that_begins_with_no_tensor_is_an_error(output: object) -> None:
    with pytest.raises(TypeError, match="must be a tensor or begin with one"):
        first_tensor(output)


def test_token_ids_go_where_the_embeddings_are() -> None:
    model, _ = build_model("llama")
    assert find_input_device(model) == torch.device("cpu")


@pytest.mark.parametrize("sequence", [False, True])
@pytest.mark.parametrize("device", ["cpu", "cuda:1"])
def test_token_ids_go_where_offloaded_embeddings_run(
    device: str, sequence: bool
) -> None:
    embeddings = nn.Embedding(3, 2, device="meta")
    hook = SimpleNamespace(execution_device=device)
    embeddings._hf_hook = SimpleNamespace(hooks=[object(), hook]) if sequence else hook
    model = SimpleNamespace(get_input_embeddings=lambda: embeddings)
    assert find_input_device(model) == torch.device(device)
