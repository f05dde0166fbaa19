import copy

import pytest
from _families import build_model
from _toy import build_toy
from torch import nn

from plug_sklearn.embedding import Anatomy
from plug_sklearn.embedding.anatomy._block_lists import find_block_lists


def test_list_that_text_runs_through_is_found_beside_a_larger_one() -> None:
    """A tower for images has more and larger blocks, which no text reaches."""
    model = build_toy()
    model.tower = nn.ModuleList(nn.Linear(64, 64) for _ in range(9))
    assert find_block_lists(model, "", None) == Anatomy("steps")


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
    assert find_block_lists(model, "", None) == Anatomy("steps,more_steps")


@pytest.mark.parametrize(
    ("name", "paths", "channels"),
    [
        ("hrm_text", "L_module.layers,H_module.layers", None),
        ("t5gemma, decoder", "decoder.layers", None),
        ("gemma3n, text", "layers", 0),
        ("hy_v4", "layers", 2),
        ("qwen4_exp", "layers", -1),
    ],
)
def test_lists_of_families(name: str, paths: str, channels: int | None) -> None:
    model, stack = build_model(name)
    assert find_block_lists(model, "", stack) == Anatomy(paths, channels=channels)


def test_blocks_that_put_tokens_first_are_found() -> None:
    model = build_toy(mode="tokens first")
    assert find_block_lists(model, "", None) == Anatomy("steps", token_axis=0)
