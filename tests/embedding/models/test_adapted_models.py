import pytest
import torch
import transformers
from _families import build_model

from plug_sklearn.embedding.models._adapted_models import (
    SharedModules,
    build_trained_models,
    fit_sizes,
    match_modules,
    name_parameter,
)


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


@pytest.mark.parametrize("module", ["", "modules_to_save."])
def test_heads_get_the_size_of_what_is_saved(module: str) -> None:
    model, _ = build_model("llama")
    with torch.device("meta"):
        trained = transformers.LlamaForSequenceClassification(model.config)
    saved = {f"base_model.model.score.{module}weight": torch.ones(7, 32)}
    assert fit_sizes(trained, saved).score.weight.shape == (7, 32)
    assert trained.score.weight.shape == (2, 32)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("base_model.model.score.weight", "score.weight"),
        ("base_model.model.lm_head.lora_B.weight", "lm_head.weight"),
        ("base_model.model.wte.base_layer.weight", "wte.weight"),
    ],
)
def test_parameter_is_named_after_the_weight_of_an_adapter(key: str, name: str) -> None:
    assert name_parameter(key) == name
