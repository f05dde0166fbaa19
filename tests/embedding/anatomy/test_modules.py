from types import SimpleNamespace

import pytest
import torch
from _families import build_model
from torch import nn
from transformers import PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutput

from plug_sklearn.embedding.anatomy import (
    Anatomy,
    find_blocks,
    find_input_device,
    first_tensor,
)


def list_blocks(root: nn.Module, path: str) -> list[nn.Module]:
    return [block.module for block in find_blocks(root, Anatomy(path))]


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


def test_paths_lead_to_modules_and_lists_to_their_items() -> None:
    root = nn.ModuleDict(
        {
            "blocks": nn.ModuleList([nn.ReLU(), nn.Tanh()]),
            "groups": nn.ModuleList(
                nn.ModuleDict({"layers": nn.ModuleList([nn.GELU(), nn.SiLU()])})
                for _ in range(2)
            ),
        }
    )
    root.config = PreTrainedConfig(hidden_size=8)
    relu, tanh = root["blocks"]
    assert list_blocks(root, "blocks") == [relu, tanh]
    assert list_blocks(root, "blocks.1") == [tanh]
    names = [type(m).__name__ for m in list_blocks(root, "groups.*.layers")]
    assert names == ["GELU", "SiLU", "GELU", "SiLU"]


def test_a_path_that_leads_nowhere_gives_nothing() -> None:
    block = nn.ReLU()
    block.register_module("attention", None)
    for path in ("attention", "attention.output", "absent"):
        assert list_blocks(block, path) == []


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
