import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
import transformers
from _adapted import LORA, TEXTS, read_blocks, rename_weights, train_adapter
from _families import build_model
from numpy.testing import assert_allclose

from plug_sklearn import HFEmbeddingTransformer
from plug_sklearn.embedding import release_models
from plug_sklearn.embedding.models._adapters import (
    SharedModules,
    build_trained_models,
    fit_sizes,
    match_modules,
)

CAUSAL = "AutoModelForCausalLM"
CLASSIFIER = "AutoModelForSequenceClassification"


def embed(folder: str | Path, **parameters: object) -> np.ndarray:
    embedder = HFEmbeddingTransformer(folder, device="cpu", **parameters)
    return embedder.fit_transform(list(TEXTS))


def assert_read_as_adapted(
    adapted: peft.PeftModel, blocks: str, base: str, adapter: Path
) -> None:
    expected = read_blocks(adapted, f"base_model.model.{blocks}", base)
    found = embed(base, adapter=adapter)
    assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert not np.allclose(embed(base), expected, atol=0.1)


@pytest.fixture(scope="session")
def gemma3(
    save_model: Callable[..., str], byte_tokenizer: Callable[..., object]
) -> str:
    """Folder of a language model with a vision tower: 3 text and 2 vision layers."""
    config = transformers.Gemma3Config(
        text_config={
            "vocab_size": 330,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 8,
            "max_position_embeddings": 64,
            "pad_token_id": 0,
        },
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        },
        mm_tokens_per_image=4,
        image_token_index=329,
        boi_token_index=328,
        eoi_token_index=327,
    )
    return save_model(config, byte_tokenizer())


@pytest.mark.parametrize("task", [None, "FEATURE_EXTRACTION", "CAUSAL_LM"])
def test_adapter_of_a_causal_model_is_applied_whatever_its_task(
    llama: str, tmp_path: Path, task: str | None
) -> None:
    config = peft.LoraConfig(**LORA, task_type=task)
    adapted = train_adapter(CAUSAL, llama, tmp_path, config)
    assert_read_as_adapted(adapted, "model.layers", llama, tmp_path)


@pytest.mark.parametrize("task", [None, "FEATURE_EXTRACTION"])
def test_adapter_of_a_model_without_a_head_is_applied(
    llama: str, tmp_path: Path, task: str | None
) -> None:
    config = peft.LoraConfig(**LORA, task_type=task)
    adapted = train_adapter("AutoModel", llama, tmp_path, config)
    assert_read_as_adapted(adapted, "layers", llama, tmp_path)


def test_adapter_whose_configuration_names_no_class_is_applied(
    llama: str, tmp_path: Path
) -> None:
    adapted = train_adapter(CAUSAL, llama, tmp_path, peft.LoraConfig(**LORA))
    file = tmp_path / "adapter_config.json"
    file.write_text(file.read_text().replace("auto_mapping", "forgotten"))
    with pytest.warns(UserWarning, match="forgotten"):
        assert_read_as_adapted(adapted, "model.layers", llama, tmp_path)


@pytest.mark.parametrize("n_labels", [2, 5])
def test_adapter_of_a_classifier_is_applied_whatever_its_labels(
    llama: str, tmp_path: Path, n_labels: int
) -> None:
    config = peft.LoraConfig(**LORA, task_type="SEQ_CLS")
    adapted = train_adapter(CLASSIFIER, llama, tmp_path, config, num_labels=n_labels)
    assert_read_as_adapted(adapted, "model.layers", llama, tmp_path)


def test_adapter_of_a_classifier_without_a_task_is_applied(
    llama: str, tmp_path: Path
) -> None:
    config = peft.LoraConfig(**LORA, modules_to_save=["score"])
    adapted = train_adapter(CLASSIFIER, llama, tmp_path, config, num_labels=7)
    assert_read_as_adapted(adapted, "model.layers", llama, tmp_path)


def test_adapter_of_a_token_classifier_is_applied(bert: str, tmp_path: Path) -> None:
    config = peft.LoraConfig(target_modules=["query", "dense"], task_type="TOKEN_CLS")
    auto = "AutoModelForTokenClassification"
    adapted = train_adapter(auto, bert, tmp_path, config, num_labels=9)
    assert_read_as_adapted(adapted, "bert.encoder.layer", bert, tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        peft.LoraConfig(**LORA, modules_to_save=["embed_tokens", "lm_head"]),
        peft.LoraConfig(**LORA, modules_to_save=["input_layernorm"]),
        peft.LoraConfig(r=2, target_modules=["embed_tokens", "lm_head"]),
        peft.LoraConfig(r=2, target_modules="all-linear", use_dora=True),
        peft.LoraConfig(**LORA, alpha_pattern={"^model.layers.0.mlp.down_proj": 32}),
        peft.IA3Config(target_modules=["k_proj"], feedforward_modules=[]),
        peft.LoHaConfig(r=2, target_modules=["k_proj"]),
        peft.VBLoRAConfig(r=2, target_modules=["q_proj"], vector_length=8, topk=2),
    ],
    ids=["saved", "norms", "words", "dora", "pattern", "ia3", "loha", "vblora"],
)
def test_each_kind_of_adapter_that_changes_weights_is_applied(
    llama: str, tmp_path: Path, config: peft.PeftConfig
) -> None:
    adapted = train_adapter(CAUSAL, llama, tmp_path, config)
    expected = read_blocks(adapted, "base_model.model.model.layers", llama)
    assert_allclose(embed(llama, adapter=tmp_path), expected, rtol=1e-4, atol=1e-4)
    assert not np.allclose(embed(llama), expected, atol=1e-2)


@pytest.mark.parametrize("modules", [["lm_head", "q_proj"], ["embed_tokens", "q_proj"]])
def test_head_that_is_tied_to_the_embeddings_is_of_no_concern(
    llama: str, tmp_path: Path, modules: list[str]
) -> None:
    tied = tmp_path / "tied"
    shutil.copytree(llama, tied)
    config = tied / "config.json"
    config.write_text(
        config.read_text().replace(
            '"tie_word_embeddings": false', '"tie_word_embeddings": true'
        )
    )
    lora = peft.LoraConfig(r=2, target_modules=modules)
    adapter = tmp_path / "adapter"
    with pytest.warns(UserWarning, match="tie_word_embeddings"):
        adapted = train_adapter(CAUSAL, str(tied), adapter, lora)
    assert adapted.config.tie_word_embeddings
    assert_read_as_adapted(adapted, "model.layers", str(tied), adapter)


def test_adapter_that_has_learnt_more_tokens_is_applied(
    llama: str, tmp_path: Path
) -> None:
    bigger = transformers.AutoModelForCausalLM.from_pretrained(llama)
    bigger.resize_token_embeddings(340, mean_resizing=False)
    bigger.save_pretrained(tmp_path / "bigger")
    config = peft.LoraConfig(**LORA, modules_to_save=["embed_tokens", "lm_head"])
    adapter = tmp_path / "adapter"
    adapted = train_adapter(CAUSAL, str(tmp_path / "bigger"), adapter, config)
    assert_read_as_adapted(adapted, "model.layers", llama, adapter)


@pytest.mark.parametrize("task", [None, "CAUSAL_LM"])
@pytest.mark.parametrize("auto", [CAUSAL, "AutoModelForImageTextToText"])
def test_adapter_of_a_model_that_sees_is_applied(
    gemma3: str, tmp_path: Path, auto: str, task: str | None
) -> None:
    config = peft.LoraConfig(**LORA, task_type=task)
    adapted = train_adapter(auto, gemma3, tmp_path, config)
    assert_read_as_adapted(adapted, "model.language_model.layers", gemma3, tmp_path)


def _name_as_before(name: str) -> str:
    name = name.replace("model.model.vision_tower.", "model.vision_tower.")
    return name.replace("model.model.language_model.", "model.language_model.model.")


@pytest.mark.parametrize(
    ("rename", "modules"),
    [
        pytest.param(_name_as_before, ["q_proj", "down_proj"], id="older names"),
        pytest.param(
            lambda name: _name_as_before(name).replace(
                "language_model.model.", "model."
            ),
            ["q_proj", "down_proj"],
            id="oldest names",
        ),
        pytest.param(
            lambda name: name.replace("language_model.", ""),
            r".*language_model.*\.(q_proj|down_proj)",
            id="text model's names",
        ),
    ],
)
def test_adapter_of_a_model_that_sees_is_applied_under_other_names(
    gemma3: str, tmp_path: Path, rename: Callable[[str], str], modules: object
) -> None:
    config = peft.LoraConfig(r=2, target_modules=modules)
    auto = "AutoModelForImageTextToText"
    adapted = train_adapter(auto, gemma3, tmp_path, config)
    rename_weights(tmp_path, rename)
    assert_read_as_adapted(adapted, "model.language_model.layers", gemma3, tmp_path)


@pytest.mark.parametrize("task", [None, "SEQ_2_SEQ_LM", "FEATURE_EXTRACTION"])
def test_adapter_of_an_encoder_decoder_is_applied(
    t5: str, tmp_path: Path, task: str | None
) -> None:
    config = peft.LoraConfig(
        r=2, target_modules=["q", "wo"], modules_to_save=["shared"], task_type=task
    )
    adapted = train_adapter("AutoModelForSeq2SeqLM", t5, tmp_path, config)
    assert_read_as_adapted(adapted, "encoder.block", t5, tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
        peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
        peft.PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
        peft.AdaptionPromptConfig(
            task_type="CAUSAL_LM", adapter_len=2, adapter_layers=2
        ),
    ],
    ids=lambda config: config.peft_type.value,
)
def test_prompt_learning_is_refused_by_name(
    llama: str, tmp_path: Path, config: peft.PeftConfig
) -> None:
    train_adapter(CAUSAL, llama, tmp_path, config)
    kind = config.peft_type.value
    with pytest.raises(ValueError, match=rf"'adapter'.*type is {kind}"):
        embed(llama, adapter=tmp_path)


def test_adapter_that_depends_on_the_text_is_refused(
    llama: str, tmp_path: Path
) -> None:
    config = peft.LoraConfig(**LORA, task_type="CAUSAL_LM", alora_invocation_tokens=[5])
    train_adapter(CAUSAL, llama, tmp_path, config)
    with pytest.raises(ValueError, match=r"'adapter'.*can be merged.*type LORA"):
        embed(llama, adapter=tmp_path)


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        (
            lambda name: name.replace("model.layers", "module.layers"),
            "12 of its 12 weights do not fit; the first is 'base_model.model.module.",
        ),
        (
            lambda name: name.replace("layers.2", "layers.7"),
            "8 of its 12 weights do not fit; the first is "
            "'base_model.model.model.layers.7.",
        ),
        (
            lambda name: None if "layers.1" in name else name,
            "4 of its 8 weights do not fit; the first is "
            "'base_model.model.model.layers.1.",
        ),
    ],
    ids=["prefix", "layer", "lacking"],
)
def test_weights_of_an_adapter_that_do_not_fit_are_counted_and_named(
    llama: str, tmp_path: Path, rename: Callable[[str], str | None], message: str
) -> None:
    train_adapter(CAUSAL, llama, tmp_path, peft.LoraConfig(**LORA))
    rename_weights(tmp_path, rename)
    with pytest.raises(ValueError, match=re.escape(message)):
        embed(llama, adapter=tmp_path)


def test_adapter_of_another_model_is_refused(
    llama: str, bert: str, tmp_path: Path
) -> None:
    train_adapter(CAUSAL, llama, tmp_path, peft.LoraConfig(**LORA))
    with pytest.raises(ValueError, match=r"'adapter'.*12 of its 12 weights"):
        embed(bert, adapter=tmp_path)


def test_adapter_without_peft_says_what_to_install(
    llama: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"'adapter'.*its extra \[adapters\]"):
        embed(llama, adapter="nobody/adapter")


def test_folder_without_an_adapter_is_refused(llama: str) -> None:
    with pytest.raises(ValueError, match=r"'adapter'.*with an adapter_config\.json"):
        HFEmbeddingTransformer(llama, adapter=llama).fit(TEXTS)


def test_folder_with_a_configuration_only_is_refused(
    llama: str, tmp_path: Path
) -> None:
    train_adapter(CAUSAL, llama, tmp_path, peft.LoraConfig(**LORA))
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"'adapter'.*adapter_model\.safetensors"):
        embed(llama, adapter=tmp_path)


def test_adapter_of_an_offloaded_model_is_refused(llama: str, tmp_path: Path) -> None:
    train_adapter(CAUSAL, llama, tmp_path, peft.LoraConfig(**LORA))
    offloaded = {"device_map": {"": "disk"}, "offload_folder": tmp_path / "offload"}
    with pytest.raises(ValueError, match=r"'adapter'.*must be None.*offloaded"):
        embed(llama, adapter=tmp_path, model_kwargs=offloaded)


@pytest.fixture
def adapted_folder(llama: str, tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A folder that holds weights and an adapter, and the adapted model's states."""
    folder = tmp_path / "both"
    shutil.copytree(llama, folder)
    adapted = train_adapter(CAUSAL, llama, folder, peft.LoraConfig(**LORA))
    return folder, read_blocks(adapted, "base_model.model.model.layers", llama)


def test_adapter_in_a_model_s_folder_is_applied(
    adapted_folder: tuple[Path, np.ndarray],
) -> None:
    folder, expected = adapted_folder
    for parameters in ({}, {"adapter": folder}):
        assert_allclose(embed(folder, **parameters), expected, rtol=1e-4, atol=1e-4)


def test_another_adapter_goes_before_the_one_in_the_model_s_folder(
    adapted_folder: tuple[Path, np.ndarray], llama: str, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    config = peft.LoraConfig(r=3, target_modules=["v_proj"])
    adapted = train_adapter(CAUSAL, llama, other, config)
    expected = read_blocks(adapted, "base_model.model.model.layers", llama)
    found = embed(adapted_folder[0], adapter=other)
    assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_adapter_in_a_model_s_folder_needs_peft(
    adapted_folder: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    release_models()
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"adapter_config\.json, needs peft"):
        embed(adapted_folder[0])


def test_folder_of_an_adapter_alone_is_no_model(llama: str, tmp_path: Path) -> None:
    train_adapter(CAUSAL, llama, tmp_path, peft.LoraConfig(**LORA))
    with pytest.raises(ValueError, match=f"'model_name'.*holds an adapter.*'{llama}'"):
        embed(tmp_path)


@pytest.mark.parametrize(
    ("task", "class_name", "first"),
    [
        ("SEQ_CLS", None, "LlamaForSequenceClassification"),
        ("TOKEN_CLS", None, "LlamaForTokenClassification"),
        (None, "LlamaModel", "LlamaModel"),
        (None, "os", "LlamaForCausalLM"),
    ],
)
def test_the_likely_class_comes_first_and_each_class_once(
    task: str | None, class_name: str | None, first: str
) -> None:
    model, _ = build_model("llama")
    names = [
        type(trained).__name__
        for trained in build_trained_models(
            model.config, task=task, class_name=class_name, trust_remote_code=False
        )
    ]
    assert names[0] == first
    assert len(set(names)) == len(names)
    assert {"LlamaModel", "LlamaForCausalLM"} < set(names)


def test_trained_models_are_built_without_weights() -> None:
    model, _ = build_model("bert")
    trained_models = build_trained_models(
        model.config, task=None, class_name=None, trust_remote_code=False
    )
    assert all(
        weight.is_meta for trained in trained_models for weight in trained.parameters()
    )


@pytest.mark.parametrize(
    ("family", "auto", "parents"),
    [
        ("llama", "AutoModelForCausalLM", ("", "model")),
        ("llama", "AutoModel", ("", "")),
        ("gpt2", "AutoModelForSequenceClassification", ("", "transformer")),
        ("t5, encoder", "AutoModelForSeq2SeqLM", ("", "")),
        ("gemma3, multimodal", "AutoModelForImageTextToText", ("", "model")),
    ],
)
def test_place_of_a_model_in_the_trained_one_is_found(
    family: str, auto: str, parents: tuple[str, str]
) -> None:
    model, _ = build_model(family)
    with torch.device("meta"):
        trained = getattr(transformers, auto).from_config(model.config)
    found = match_modules(model, trained)
    assert (found.parent, found.trained_parent) == parents
    assert found.names == tuple(name for name, _ in model.named_children())


def test_text_model_is_found_in_a_model_without_the_towers() -> None:
    model, _ = build_model("gemma3, multimodal")
    with torch.device("meta"):
        trained = transformers.Gemma3ForCausalLM(model.config.get_text_config())
    shared = match_modules(model, trained)
    assert (shared.parent, shared.trained_parent) == ("language_model", "model")
    shared.move_into(model, trained)
    assert trained.model.layers is model.language_model.layers
    assert shared.rename("model.norm.weight") == "language_model.norm.weight"
    assert shared.rename("lm_head.weight") is None


def test_replaced_modules_go_back_into_the_model() -> None:
    model, trained = torch.nn.Module(), torch.nn.Module()
    model.layer, trained.inner = torch.nn.Linear(2, 2), torch.nn.Module()
    shared = SharedModules("", "inner", ("layer",))
    shared.move_into(model, trained)
    trained.inner.layer = replaced = torch.nn.Linear(2, 2)
    shared.move_back(model, trained)
    assert model.layer is replaced


@pytest.mark.parametrize("module", ["", "modules_to_save.", "base_layer.", "lora_B."])
def test_heads_get_the_size_of_what_is_saved(module: str) -> None:
    model, _ = build_model("llama")
    with torch.device("meta"):
        trained = transformers.LlamaForSequenceClassification(model.config)
    saved = {f"base_model.model.score.{module}weight": torch.ones(7, 32)}
    assert fit_sizes(trained, saved).score.weight.shape == (7, 32)
    assert trained.score.weight.shape == (2, 32)
