"""Models that are in memory already."""

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

from plug_sklearn import HFEmbeddingTransformer
from plug_sklearn.embedding import register_model, unregister_model
from plug_sklearn.persistence import ProvenanceWarning

NAME = "my fine-tuned model"
TEXTS = ["Gold is a metal.", "Lima is in Peru.", "Au"]
PARAMETERS: dict[str, Any] = {"parts": ("rs", "attn", "mlp"), "pooling": "mean"}
#: A chat template that writes each message after a sign.
TURN = "{% for message in messages %}T:{{ message['content'] }}\n{% endfor %}"
#: How the saved model is read. Both models are read in token tries; where one is not,
#: which changes the last bits, standard error says why.
SAVED: dict[str, Any] = {"device": "cpu", "verbose": True}


@pytest.fixture
def causal(llama: str) -> Iterator[transformers.PreTrainedModel]:
    """A causal model in training mode, registered with its tokenizer."""
    model = transformers.AutoModelForCausalLM.from_pretrained(llama)
    model.train()
    register_model(NAME, model, transformers.AutoTokenizer.from_pretrained(llama))
    yield model
    unregister_model(NAME)


def train(model: torch.nn.Module) -> None:
    """One step of gradient descent, on anything."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(input_ids=torch.arange(5)[None]).logits.square().mean().backward()
    optimizer.step()


def test_registered_model_is_read_as_a_loaded_one(
    causal: transformers.PreTrainedModel, llama: str
) -> None:
    found = HFEmbeddingTransformer(NAME, **PARAMETERS).fit_transform(TEXTS)
    expected = HFEmbeddingTransformer(llama, **SAVED, **PARAMETERS)
    assert_array_equal(found, expected.fit_transform(TEXTS))


@pytest.mark.parametrize(
    "model_class", ["AutoModel", "AutoModelForSequenceClassification"]
)
def test_models_with_and_without_heads_are_read(llama: str, model_class: str) -> None:
    model = getattr(transformers, model_class).from_pretrained(llama)
    register_model("other", model, transformers.AutoTokenizer.from_pretrained(llama))
    try:
        found = HFEmbeddingTransformer("other", layers=1).fit_transform(TEXTS)
    finally:
        unregister_model("other")
    expected = HFEmbeddingTransformer(llama, **SAVED, layers=1)
    assert_array_equal(found, expected.fit_transform(TEXTS))


def test_adapted_model_is_read_with_its_adapter(
    causal: transformers.PreTrainedModel, llama: str
) -> None:
    plain = HFEmbeddingTransformer(NAME, **PARAMETERS).fit_transform(TEXTS)
    config = peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(causal, config)
    tokenizer = transformers.AutoTokenizer.from_pretrained(llama)
    register_model(NAME, adapted, tokenizer)
    found = HFEmbeddingTransformer(NAME, layers=2).fit_transform(TEXTS)[:, 0, 0]
    adapted.eval()
    for states, text in zip(found, TEXTS, strict=True):
        with torch.no_grad():
            output = adapted(
                **tokenizer(text, return_tensors="pt"), output_hidden_states=True
            )
        # The last of the hidden states comes after the final norm.
        normed = adapted.get_base_model().model.norm(torch.tensor(states))
        assert_allclose(
            normed.detach(), output.hidden_states[-1][0, -1], rtol=1e-3, atol=1e-4
        )
    assert not np.allclose(found, plain[:, 2, 0])


def test_reading_leaves_the_model_as_it_was(
    causal: transformers.PreTrainedModel,
) -> None:
    causal.config.use_cache = True
    before = {name: weight.clone() for name, weight in causal.state_dict().items()}
    HFEmbeddingTransformer(NAME, **PARAMETERS).fit_transform(TEXTS)
    assert all(module.training for module in causal.modules())
    assert causal.config.use_cache
    assert all(parameter.requires_grad for parameter in causal.parameters())
    assert not any(module._forward_hooks for module in causal.modules())
    for name, weight in causal.state_dict().items():
        assert torch.equal(weight, before[name])


def test_further_training_is_noticed(
    causal: transformers.PreTrainedModel, tmp_path: Path
) -> None:
    embedder = HFEmbeddingTransformer(NAME, store=tmp_path, **PARAMETERS)
    before = embedder.fit_transform(TEXTS)
    assert_array_equal(embedder.transform(TEXTS), before)
    train(causal)
    with pytest.warns(ProvenanceWarning, match="has changed since"):
        after = embedder.transform(TEXTS)
    assert not np.allclose(after, before)
    again = clone(embedder).set_params(store=None).fit_transform(TEXTS)
    assert_array_equal(after, again)


def test_edits_of_data_are_noticed(causal: transformers.PreTrainedModel) -> None:
    embedder = HFEmbeddingTransformer(NAME, **PARAMETERS).fit(TEXTS)
    origin = embedder._origin
    causal.model.layers[0].mlp.up_proj.weight.data[0, 0] += 1
    assert embedder.fit(TEXTS)._origin != origin


def reverse_rows(weight: torch.Tensor) -> None:
    weight.data.copy_(weight.data.flip(0).clone())


def swap_rows_in_numpy(weight: torch.Tensor) -> None:
    rows = weight.detach().numpy()
    rows[[0, 1]] = rows[[1, 0]]


def swap_columns(weight: torch.Tensor) -> None:
    weight.data[:, [2, 3]] = weight.data[:, [3, 2]]


@pytest.mark.parametrize("edit", [reverse_rows, swap_rows_in_numpy, swap_columns])
def test_weights_in_another_order_never_meet_in_the_store(
    causal: transformers.PreTrainedModel,
    tmp_path: Path,
    edit: Callable[[torch.Tensor], None],
) -> None:
    embedder = HFEmbeddingTransformer(NAME, store=tmp_path, **PARAMETERS)
    before = embedder.fit_transform(TEXTS)
    edit(causal.model.layers[0].mlp.up_proj.weight)
    after = clone(embedder).fit_transform(TEXTS)
    expected = clone(embedder).set_params(store=None).fit_transform(TEXTS)
    assert_array_equal(after, expected)
    assert not np.array_equal(after, before)


@pytest.mark.parametrize(
    "change",
    [{"bos_token": "<|im_end|>"}, {"chat_template": TURN.replace("T:", "S:")}],
    ids=["special token", "chat template"],
)
def test_other_tokenizers_never_meet_in_the_store(
    causal: transformers.PreTrainedModel,
    llama: str,
    tmp_path: Path,
    change: dict[str, str],
) -> None:
    conversations = [[{"role": "user", "content": text}] for text in TEXTS]
    parameters: dict[str, Any] = {**PARAMETERS, "pool_over": "prompt"}
    tokenizer = transformers.AutoTokenizer.from_pretrained(llama)
    tokenizer.chat_template = TURN
    register_model(NAME, causal, tokenizer)
    embedder = HFEmbeddingTransformer(NAME, store=tmp_path, **parameters)
    before = embedder.fit_transform(conversations)
    other = copy.deepcopy(tokenizer)
    for name, value in change.items():
        setattr(other, name, value)
    register_model(NAME, causal, other)
    with pytest.warns(ProvenanceWarning, match="has changed since"):
        embedder.transform(conversations)
    # The earlier one finds what was stored with it.
    register_model(NAME, causal, tokenizer)
    assert_array_equal(clone(embedder).fit_transform(conversations), before)
    register_model(NAME, causal, other)
    after = clone(embedder).fit_transform(conversations)
    expected = clone(embedder).set_params(store=None).fit_transform(conversations)
    assert_array_equal(after, expected)


def test_adapters_in_use_are_part_of_the_key(
    causal: transformers.PreTrainedModel, llama: str, tmp_path: Path
) -> None:
    config = peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(causal, config)
    adapted.add_adapter("other", config)
    register_model(NAME, adapted, transformers.AutoTokenizer.from_pretrained(llama))
    embedder = HFEmbeddingTransformer(NAME, store=tmp_path, **PARAMETERS)

    def check() -> np.ndarray:
        found = clone(embedder).fit_transform(TEXTS)
        expected = clone(embedder).set_params(store=None).fit_transform(TEXTS)
        assert_array_equal(found, expected)
        return found

    first = check()
    adapted.set_adapter("other")
    assert not np.array_equal(check(), first)
    adapted.set_adapter("default")
    with adapted.disable_adapter():
        assert not np.array_equal(check(), first)
    assert_array_equal(check(), first)


def test_store_keeps_models_of_one_name_apart(
    causal: transformers.PreTrainedModel, tmp_path: Path
) -> None:
    parameters = {**PARAMETERS, "store": tmp_path}
    before = HFEmbeddingTransformer(NAME, **parameters).fit_transform(TEXTS)
    train(causal)
    after = HFEmbeddingTransformer(NAME, **parameters).fit_transform(TEXTS)
    assert not np.allclose(after, before)


def test_pickles_stay_light_and_say_what_is_missing_elsewhere(
    causal: transformers.PreTrainedModel, tmp_path: Path
) -> None:
    embedder = HFEmbeddingTransformer(NAME).fit(TEXTS)
    content = pickle.dumps(embedder)
    assert len(content) < 10_000
    found = pickle.loads(content).transform(TEXTS)
    assert_array_equal(found, embedder.transform(TEXTS))
    (tmp_path / "embedder.pkl").write_bytes(content)
    script = """
import pickle, sys
embedder = pickle.load(open(sys.argv[1], "rb"))
try:
    embedder.transform(["a"])
except ValueError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "embedder.pkl")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "registered in this process, as it was in fit" in done.stdout
    assert NAME in done.stdout


def test_workers_are_not_asked_for_a_model_that_they_do_not_have(
    causal: transformers.PreTrainedModel,
) -> None:
    one = HFEmbeddingTransformer(NAME).fit_transform(TEXTS)
    assert_array_equal(HFEmbeddingTransformer(NAME, n_jobs=2).fit_transform(TEXTS), one)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("quantization", "8bit"),
        ("adapter", "some/folder"),
        ("attn_implementation", "eager"),
        ("model_kwargs", {"subfolder": "a"}),
        ("dtype", "bfloat16"),
    ],
)
def test_what_would_load_it_otherwise_is_refused(
    causal: transformers.PreTrainedModel, name: str, value: object
) -> None:
    embedder = HFEmbeddingTransformer(NAME, **{name: value}).fit(TEXTS)
    with pytest.raises(ValueError, match=rf"'{name}' parameter.*registered"):
        embedder.transform(TEXTS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": ""}, "'name' parameter"),
        ({"name": 3}, "'name' parameter"),
        ({"model": torch.nn.Linear(2, 2)}, "'model' parameter.*Got Linear"),
        ({"model": "gpt2"}, "'model' parameter.*Got str"),
        ({"tokenizer": None}, "'tokenizer' parameter.*Got NoneType"),
    ],
)
def test_what_is_no_model_is_refused_by_name(
    llama: str, arguments: dict[str, Any], message: str
) -> None:
    good = {
        "name": "x",
        "model": transformers.AutoModel.from_pretrained(llama),
        "tokenizer": transformers.AutoTokenizer.from_pretrained(llama),
    }
    with pytest.raises(TypeError, match=message):
        register_model(**{**good, **arguments})


def test_prompt_learning_is_refused(
    causal: transformers.PreTrainedModel, llama: str
) -> None:
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    adapted = peft.get_peft_model(causal, config)
    tokenizer = transformers.AutoTokenizer.from_pretrained(llama)
    with pytest.raises(TypeError, match="prompt learning"):
        register_model("x", adapted, tokenizer)


def test_name_that_is_not_registered_is_told_with_those_that_are(
    causal: transformers.PreTrainedModel,
) -> None:
    with pytest.raises(KeyError, match="The registered models are"):
        unregister_model("no such")
