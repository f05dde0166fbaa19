import numpy as np
import pytest
import transformers
from _families import build_model

from plug_sklearn.embedding.passes._lengths import (
    find_choice,
    find_wall,
    find_window,
)


@pytest.mark.parametrize(
    ("name", "window"), [("mistral", 4), ("gpt_neo", 4), ("llama", np.inf)]
)
def test_window_is_the_narrowest_layer_s(name: str, window: float) -> None:
    assert find_window(build_model(name)[0].config) == window


def test_window_of_a_model_with_settings_for_each_layer_is_found() -> None:
    assert find_window(build_model("gemma4, text")[0].config) == 4


def test_tokens_that_an_index_chooses_are_a_limit() -> None:
    assert find_choice(build_model("hy_v4")[0].config) == 64
    assert find_choice(build_model("llama")[0].config) == np.inf


def test_rotary_factors_that_follow_the_length_are_a_limit() -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    config = transformers.LlamaConfig(rope_parameters=rope, max_position_embeddings=64)
    assert find_choice(config) == 64
    assert find_wall(config) == 64
