import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import peft
import pytest
from _adapted import LORA, TEXTS, rename_weights, train_adapter
from _families import FAMILIES
from _in_process import list_models
from numpy.testing import assert_array_equal

from plug_sklearn import HFEmbeddingTransformer

Lose = Callable[[str, str], str]


def embed(folder: str, **parameters: object) -> np.ndarray:
    embedder = HFEmbeddingTransformer(folder, device="cpu", **parameters)
    return embedder.fit_transform(list(TEXTS))


@pytest.fixture
def lose(tmp_path: Path) -> Lose:
    """Copy a model's folder without the weights whose names hold a pattern."""

    def lose(folder: str, pattern: str) -> str:
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy)
        rename_weights(copy, lambda name: None if re.search(pattern, name) else name)
        return str(copy)

    return lose


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.model.", "net."])
def test_weights_under_a_foreign_prefix_are_missing(
    llama: str, tmp_path: Path, prefix: str
) -> None:
    shutil.copytree(llama, tmp_path / "copy")
    rename_weights(tmp_path / "copy", lambda name: prefix + name)
    folder = str(tmp_path / "copy")
    message = (
        f"'model_name'.*Got '{folder}' instead: 28 weights are missing.*the first is "
        f"'embed_tokens.weight'.*The files hold '{prefix}embed_tokens.weight'"
    )
    with pytest.raises(ValueError, match=message):
        embed(folder)
    # What the message suggests is right.
    renamed = {"key_mapping": {f"^{re.escape(prefix)}": ""}}
    assert_array_equal(embed(folder, model_kwargs=renamed), embed(llama))


@pytest.mark.parametrize(
    ("pattern", "first", "n_missing"),
    [
        (r"layers\.1\.", "layers.1.self_attn.q_proj.weight", 9),
        (r"layers\.2\.input_layernorm", "layers.2.input_layernorm.weight", 1),
        ("embed_tokens", "embed_tokens.weight", 1),
    ],
)
def test_missing_weights_of_a_block_or_embedding_are_named(
    llama: str, lose: Lose, pattern: str, first: str, n_missing: int
) -> None:
    folder = lose(llama, pattern)
    with pytest.raises(ValueError, match=f"{n_missing} weights.*first is '{first}'"):
        embed(folder)
    # The model is kept, and still not read.
    with pytest.raises(ValueError, match=f"first is '{first}'"):
        embed(folder, layers=0)


@pytest.mark.parametrize(
    "pattern", ["position_embeddings", "token_type", r"embeddings\.LayerNorm"]
)
def test_whatever_embeds_may_not_miss(bert: str, lose: Lose, pattern: str) -> None:
    with pytest.raises(ValueError, match=f"the first is 'embeddings.*{pattern[-9:]}"):
        embed(lose(bert, pattern))


@pytest.mark.parametrize(
    "pattern", [r"encoder\.rel_embeddings", r"encoder\.LayerNorm", r"encoder\.conv"]
)
def test_weights_that_are_used_without_a_call_may_not_miss(
    save_model: Callable[..., str],
    byte_tokenizer: Callable[..., object],
    lose: Lose,
    pattern: str,
) -> None:
    config = FAMILIES["deberta_v2, convolution"].config()
    config.update({"vocab_size": 330, "relative_attention": True})
    config.update({"norm_rel_ebd": "layer_norm", "position_buckets": 8})
    config.update({"pos_att_type": ["p2c", "c2p"]})
    folder = save_model(config, byte_tokenizer())
    assert np.isfinite(embed(folder)).all()
    with pytest.raises(ValueError, match=f"the first is '{pattern}"):
        embed(lose(folder, pattern))


def test_missing_experts_are_missing(
    save_model: Callable[..., str], byte_tokenizer: Callable[..., object], lose: Lose
) -> None:
    config = FAMILIES["qwen2_moe"].config()
    config.vocab_size = 330
    folder = save_model(config, byte_tokenizer())
    with pytest.raises(ValueError, match=r"first is 'layers\.1\.mlp\.experts\."):
        embed(lose(folder, r"layers\.1\.mlp\.experts"))


@pytest.mark.parametrize("pattern", [r"^norm\.", "lm_head"])
def test_what_stands_behind_the_blocks_may_miss(
    llama: str, lose: Lose, pattern: str
) -> None:
    assert_array_equal(embed(lose(llama, pattern)), embed(llama))


def test_pooler_may_miss(bert: str, lose: Lose) -> None:
    assert_array_equal(embed(lose(bert, "pooler")), embed(bert))


def test_stack_that_is_not_read_may_miss(t5: str, lose: Lose) -> None:
    folder = lose(t5, r"^decoder\.")
    assert_array_equal(embed(folder, stack="encoder"), embed(t5, stack="encoder"))
    with pytest.raises(ValueError, match=r"the first is 'decoder\.block\.0\."):
        embed(folder, stack="decoder")


@pytest.mark.parametrize("pattern", ["block.1", "final_layer_norm"])
def test_decoder_needs_the_whole_encoder(t5: str, lose: Lose, pattern: str) -> None:
    folder = lose(t5, rf"^encoder\.{pattern}")
    with pytest.raises(ValueError, match=rf"the first is 'encoder\.{pattern}"):
        embed(folder, stack="decoder")


def test_weights_of_another_shape_are_missing(llama: str) -> None:
    changed = {"intermediate_size": 40}
    with pytest.raises(ValueError, match=r"9 weights.*'layers\.0\.mlp\.gate_proj"):
        embed(llama, model_kwargs=changed)
    with pytest.raises(ValueError, match=r"9 weights.*'layers\.0\.mlp\.gate_proj"):
        embed(llama, model_kwargs={**changed, "ignore_mismatched_sizes": True})


def test_weights_miss_under_an_adapter_too(
    llama: str, lose: Lose, tmp_path: Path
) -> None:
    train_adapter(
        "AutoModelForCausalLM", llama, tmp_path / "a", peft.LoraConfig(**LORA)
    )
    with pytest.raises(ValueError, match=r"'model_name'.*first is 'layers\.1\.self"):
        embed(lose(llama, r"layers\.1\."), adapter=tmp_path / "a")


def test_weights_that_the_adapter_holds_may_miss(
    llama: str, lose: Lose, tmp_path: Path
) -> None:
    config = peft.LoraConfig(**LORA, modules_to_save=["embed_tokens"])
    train_adapter("AutoModelForCausalLM", llama, tmp_path / "a", config)
    found = embed(lose(llama, "embed_tokens"), adapter=tmp_path / "a")
    assert_array_equal(found, embed(llama, adapter=tmp_path / "a"))


def test_missing_weights_are_looked_for_without_a_trace(bert: str, lose: Lose) -> None:
    folder = lose(bert, "pooler")
    first = embed(folder)
    assert_array_equal(embed(folder), first)
    kept = list_models()[str(folder)]
    assert kept.complete == {None}
    assert not any(weight.requires_grad for weight in kept.model.parameters())
    assert not any(module._forward_hooks for module in kept.model.modules())
