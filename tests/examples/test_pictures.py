"""The examples run, on a tiny model and few facts, and each ends in a picture."""

import importlib
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import transformers

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = [
    "which_layer",
    "parts_compared",
    "how_many_labels",
    "is_it_calibrated",
    "cnn_or_best_layer",
    "two_poolings",
    "conversations",
    "transfer",
    "stop_a_falsehood",
]


@pytest.fixture(scope="module")
def model(save_model: Callable[..., str], byte_tokenizer: Callable[..., object]) -> str:
    """Folder of a tiny random Llama that reads conversations whole."""
    config = transformers.LlamaConfig(
        vocab_size=330,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=256,
        pad_token_id=0,
    )
    folder = save_model(config, byte_tokenizer())
    # One example lets the model write.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        causal = transformers.AutoModelForCausalLM.from_config(config)
    causal.base_model.load_state_dict(
        transformers.AutoModel.from_pretrained(folder).state_dict()
    )
    causal.save_pretrained(folder)
    return folder


# A network for so few statements is the smallest one.
@pytest.mark.filterwarnings("ignore:The 'target_ratio' parameter of")
@pytest.mark.parametrize("name", NAMES)
def test_an_example_runs_and_ends_in_a_picture(
    name: str,
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    importlib.import_module(name).main(tmp_path, model, 8)
    plt.close("all")
    pixels = matplotlib.image.imread(tmp_path / f"{name}.png")
    assert pixels.shape[1] == 600
    assert len(np.unique(pixels)) > 10
    assert capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_read_at_a_glance(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 80
