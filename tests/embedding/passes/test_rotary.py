import shutil
import string
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from numpy.testing import assert_allclose
from transformers import PreTrainedConfig

from plug_sklearn import HFEmbeddingTransformer
from plug_sklearn.embedding.passes._rotary import (
    list_dynamic_modules,
    reset_rotary_factors,
)

DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 3.0}
SIZES = {
    "vocab_size": 330,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 24,
    "pad_token_id": 0,
}
# In the second, each kind of layer has factors of its own.
CONFIGS = [
    hf.LlamaConfig(**SIZES, rope_parameters=DYNAMIC),
    hf.Gemma3TextConfig(
        **SIZES,
        head_dim=8,
        layer_types=["full_attention", "sliding_attention"],
        rope_parameters={"full_attention": DYNAMIC, "sliding_attention": DYNAMIC},
    ),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
def test_reset_model_reads_as_a_fresh_one(config: PreTrainedConfig) -> None:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = hf.AutoModel.from_config(config).eval()
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
        short, long = torch.arange(5, 35)[None], torch.arange(5, 65)[None]
        expected = model(short).last_hidden_state
        model(long)
        stale = model(short).last_hidden_state
        for module in list_dynamic_modules(model):
            reset_rotary_factors(module)
        found = model(short).last_hidden_state
    assert not torch.allclose(stale, expected)
    assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_models_without_dynamic_scaling_have_no_such_modules() -> None:
    model = hf.AutoModel.from_config(hf.LlamaConfig(**SIZES))
    assert list_dynamic_modules(model) == []


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
def test_states_do_not_depend_on_what_was_read_before(
    save_model: Callable[..., str],
    byte_tokenizer: Callable[..., object],
    tmp_path: Path,
    config: PreTrainedConfig,
) -> None:
    folder = save_model(config, byte_tokenizer())
    fresh = tmp_path / "same"
    shutil.copytree(folder, fresh)
    letters = string.ascii_letters + string.digits
    texts = [letters[:24], letters[:34], letters]
    embedder = HFEmbeddingTransformer(folder, device="cpu").fit(texts)
    together = embedder.transform(texts)
    after = np.concatenate([embedder.transform([text]) for text in texts[::-1]])[::-1]
    other = HFEmbeddingTransformer(str(fresh), device="cpu").fit(texts)
    first = np.concatenate([other.transform([text]) for text in texts])
    assert_allclose(together, first, rtol=1e-5, atol=1e-5)
    assert_allclose(after, first, rtol=1e-5, atol=1e-5)
