import pytest
import torch
import transformers
from _families import build_model

from plug_sklearn.embedding.models._wholes import (
    Seat,
    build_wholes,
    find_seat,
    fit_sizes,
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
        type(whole).__name__
        for whole in build_wholes(
            model.config, task=task, class_name=class_name, trust_remote_code=False
        )
    ]
    assert names[0] == first
    assert len(set(names)) == len(names)
    assert {"LlamaModel", "LlamaForCausalLM"} < set(names)


def test_wholes_hold_no_weights() -> None:
    model, _ = build_model("bert")
    wholes = build_wholes(
        model.config, task=None, class_name=None, trust_remote_code=False
    )
    assert all(weight.is_meta for whole in wholes for weight in whole.parameters())


@pytest.mark.parametrize(
    ("family", "auto", "seat"),
    [
        ("llama", "AutoModelForCausalLM", ("", "model")),
        ("llama", "AutoModel", ("", "")),
        ("gpt2", "AutoModelForSequenceClassification", ("", "transformer")),
        ("t5, encoder", "AutoModelForSeq2SeqLM", ("", "")),
        ("gemma3, multimodal", "AutoModelForImageTextToText", ("", "model")),
    ],
)
def test_model_takes_its_seat_in_the_whole(
    family: str, auto: str, seat: tuple[str, str]
) -> None:
    model, _ = build_model(family)
    with torch.device("meta"):
        whole = getattr(transformers, auto).from_config(model.config)
    found = find_seat(model, whole)
    assert (found.part, found.place) == seat
    assert found.names == tuple(name for name, _ in model.named_children())


def test_text_model_takes_its_seat_without_the_towers() -> None:
    model, _ = build_model("gemma3, multimodal")
    with torch.device("meta"):
        whole = transformers.Gemma3ForCausalLM(model.config.get_text_config())
    seat = find_seat(model, whole)
    assert (seat.part, seat.place) == ("language_model", "model")
    seat.take(model, whole)
    assert whole.model.layers is model.language_model.layers
    assert seat.translate("model.norm.weight") == "language_model.norm.weight"
    assert seat.translate("lm_head.weight") is None


def test_what_was_replaced_in_the_whole_goes_back_into_the_model() -> None:
    model, whole = torch.nn.Module(), torch.nn.Module()
    model.layer, whole.inner = torch.nn.Linear(2, 2), torch.nn.Module()
    seat = Seat("", "inner", ("layer",))
    seat.take(model, whole)
    whole.inner.layer = replaced = torch.nn.Linear(2, 2)
    seat.leave(model, whole)
    assert model.layer is replaced


@pytest.mark.parametrize("module", ["", "modules_to_save."])
def test_heads_get_the_size_of_what_is_saved(module: str) -> None:
    model, _ = build_model("llama")
    with torch.device("meta"):
        whole = transformers.LlamaForSequenceClassification(model.config)
    saved = {f"base_model.model.score.{module}weight": torch.ones(7, 32)}
    assert fit_sizes(whole, saved).score.weight.shape == (7, 32)
    assert whole.score.weight.shape == (2, 32)


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
