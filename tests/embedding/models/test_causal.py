from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from plug_sklearn.embedding import register_model, release_models, unregister_model
from plug_sklearn.embedding.models import (
    ModelSource,
    NoHeadError,
    WeightOptions,
    load_causal,
    load_model,
)

OPTIONS = WeightOptions(torch.device("cpu"), torch.float32)
IDS = torch.tensor([[5, 9, 40, 7]])


def save(folder: Path, *, tied: bool, **options: object) -> str:
    """Save a random model with a head; gives its folder."""
    config = transformers.LlamaConfig(
        vocab_size=90,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        tie_word_embeddings=tied,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder, **options)
    return str(folder)


def pair(name: str) -> tuple[Any, Any]:
    """Load a model without its head, and with it."""
    source = ModelSource(name)
    loaded = load_model(source, OPTIONS)
    return loaded, load_causal(source, OPTIONS, loaded)


@pytest.fixture(params=["tied", "own head", "shards", "other names"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    options = {"max_shard_size": "5KB"} if request.param == "shards" else {}
    found = save(tmp_path / "model", tied=request.param == "tied", **options)
    if request.param == "other names":
        # As a checkpoint that wraps the whole, whose head is not found by its name.
        file = Path(found, "model.safetensors")
        weights = load_file(file)
        weights["output.weight"] = weights.pop("lm_head.weight")
        save_file(weights, file, metadata={"format": "pt"})
    return found


def test_the_backbone_that_is_read_is_the_one_that_writes(
    folder: str, request: pytest.FixtureRequest
) -> None:
    if request.node.callspec.params["folder"] == "other names":
        with pytest.raises(NoHeadError, match=r"'lm_head.weight' is missing"):
            pair(folder)
        return
    loaded, causal = pair(folder)
    assert causal.base_model is loaded.model
    expected = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        assert torch.equal(causal(IDS).logits, expected(IDS).logits)
    assert not any(weight.requires_grad for weight in causal.parameters())
    assert pair(folder)[1] is causal
    tied = causal.lm_head.weight is causal.model.embed_tokens.weight
    assert tied == causal.config.tie_word_embeddings
    release_models()


def test_a_head_of_another_name_is_loaded_with_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(tmp_path / "model", tied=False)
    monkeypatch.setattr(
        "plug_sklearn.embedding.models._causal._find_files", lambda *_: None
    )
    loaded, causal = pair(folder)
    assert causal.base_model is loaded.model
    expected = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        assert torch.equal(causal(IDS).logits, expected(IDS).logits)
    release_models()


def test_settings_of_generation_are_the_model_s_own(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", tied=True)
    config = transformers.GenerationConfig(do_sample=True, temperature=0.25)
    config.save_pretrained(folder)
    _, causal = pair(folder)
    assert causal.generation_config.temperature == 0.25
    release_models()


def test_a_registered_model_writes_with_its_own_head(
    tmp_path: Path, byte_tokenizer: Callable[..., PreTrainedTokenizerFast]
) -> None:
    model = AutoModelForCausalLM.from_pretrained(save(tmp_path / "model", tied=False))
    register_model("mine", model, byte_tokenizer())
    assert pair("mine")[1] is model
    register_model("mine", model.model, byte_tokenizer())
    with pytest.raises(NoHeadError, match="'mine' is a LlamaModel, which has no head"):
        pair("mine")
    unregister_model("mine")


def test_an_adapter_of_the_head_is_refused(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    folder = save(tmp_path / "model", tied=False)
    for target in ("q_proj", "lm_head"):
        model = AutoModelForCausalLM.from_pretrained(folder)
        adapted = peft.get_peft_model(
            model,
            peft.LoraConfig(task_type="CAUSAL_LM", target_modules=[target, "v_proj"]),
        )
        adapted.save_pretrained(tmp_path / target, save_embedding_layers=False)
        options = WeightOptions(
            OPTIONS.device, OPTIONS.dtype, adapter=str(tmp_path / target)
        )
        source = ModelSource(folder)
        loaded = load_model(source, options)
        if target == "lm_head":
            with pytest.raises(NoHeadError, match=r"changes the head .*lm_head"):
                load_causal(source, options, loaded)
        else:
            causal = load_causal(source, options, loaded)
            with torch.no_grad():
                expected = adapted.eval()(IDS).logits
                assert torch.allclose(causal(IDS).logits, expected, atol=1e-5)
    release_models()
