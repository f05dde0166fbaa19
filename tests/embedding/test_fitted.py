import pickle
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.pipeline import Pipeline
from transformers import PreTrainedConfig, PreTrainedTokenizerFast

from plug_sklearn import (
    HFEmbeddingTransformer,
    PlugStackClassifier,
    generate_with_probes,
    load_artifacts,
    save_artifacts,
)
from plug_sklearn.embedding import token_labels
from plug_sklearn.persistence import ProvenanceWarning

TEXTS = ["Paris is in France.", "Gold is a metal, and iron is one too."]
#: Values other than the defaults, of parameters that decide what is read of a text.
REFUSED = {
    "layers": [1],
    "parts": ["mlp"],
    "pooling": "mean",
    "pool_over": "text",
    "roles": ["user"],
    "token_filter": "special",
    "eos_token": "<think>",
    "prompt_template": "Is it so? {text}",
    "chat_template": True,
    "generation_prompt": True,
    "special_tokens": "literal",
    "stack": "decoder",
    "max_length": 3,
    "truncation_side": "right",
    "quantization": "4bit",
    "model_kwargs": {"rope_theta": 5.0},
}
#: Those of parameters that name files: they may have been moved.
WARNED = {"model_name": None, "revision": None, "adapter": "/moved/adapter"}
#: Those of parameters of place, speed and rounding.
FREE = {
    "batch_tokens": 7,
    "device": "cpu",
    "dtype": "bfloat16",
    "activation_dtype": "float16",
    "attn_implementation": "eager",
    "trust_remote_code": True,
    "store": None,
    "n_jobs": 2,
    "verbose": True,
}


def fit(llama: str, **parameters: Any) -> HFEmbeddingTransformer:  # noqa: ANN401
    return HFEmbeddingTransformer(llama, device="cpu", **parameters).fit(TEXTS)


def test_every_parameter_is_refused_warned_of_or_free() -> None:
    names = [*REFUSED, *WARNED, *FREE]
    assert sorted(names) == sorted(HFEmbeddingTransformer().get_params())


@pytest.mark.parametrize(("name", "value"), REFUSED.items())
def test_what_is_read_of_a_text_cannot_be_set_after_fit(
    llama: str, name: str, value: object
) -> None:
    embedder = fit(llama)
    embedder.set_params(**{name: value})
    spans: list[Any] = [[], []]
    for read in (
        embedder.transform,
        embedder.selected_tokens,
        lambda texts: token_labels(embedder, texts, spans),
    ):
        with pytest.raises(ValueError, match=rf"'{name}'.*not change after fit.*again"):
            read(TEXTS)


@pytest.mark.parametrize(
    ("fitted", "same"),
    [
        ({"layers": -1}, {"layers": [2]}),
        ({"roles": ["user"]}, {"roles": ("user",)}),
        ({"pooling": "last"}, {"pooling": ["last"]}),
        ({"model_kwargs": {}}, {"model_kwargs": {"local_files_only": True}}),
        (
            {"model_kwargs": {"trust_remote_code": False}},
            {"model_kwargs": {"use_safetensors": True}},
        ),
    ],
)
def test_other_words_for_the_same_are_no_change(
    llama: str, fitted: dict[str, object], same: dict[str, object]
) -> None:
    embedder = fit(llama, **fitted)
    expected = embedder.transform(TEXTS)
    assert_array_equal(embedder.set_params(**same).transform(TEXTS), expected)


def test_speed_and_place_can_be_set_after_fit(llama: str, tmp_path: Path) -> None:
    embedder = fit(llama)
    expected = embedder.transform(TEXTS)
    embedder.set_params(batch_tokens=7, n_jobs=1, verbose=True, store=tmp_path / "s")
    assert_allclose(embedder.transform(TEXTS), expected, rtol=1e-4, atol=1e-5)
    embedder.set_params(dtype="bfloat16", activation_dtype="float16")
    assert embedder.transform(TEXTS).dtype == "float16"


@pytest.mark.parametrize("store", ["pickle", "artifact"])
def test_loaded_estimators_remember_what_fit_was_given(
    llama: str, tmp_path: Path, store: str
) -> None:
    embedder = fit(llama, max_length=5, layers=[0, -1])
    if store == "pickle":
        loaded = pickle.loads(pickle.dumps(embedder))
    else:
        save_artifacts(embedder, tmp_path / "embedder")
        loaded = load_artifacts(tmp_path / "embedder", device="cpu")
    with pytest.warns(UserWarning, match="cut"):
        loaded.transform(TEXTS)
    with pytest.raises(ValueError, match=r"'max_length'.*gave 5.*Got 4 instead"):
        loaded.set_params(max_length=4).transform(TEXTS)


def test_probes_that_write_refuse_changes_too(llama: str) -> None:
    embedder = fit(llama)
    probe = PlugStackClassifier(random_state=0)
    X = embedder.fit_transform(TEXTS * 20)
    probe.fit(X, [0, 1] * 20)
    pipeline = Pipeline([("embedder", embedder), ("probe", probe)])
    embedder.set_params(prompt_template="So: {text}")
    with pytest.raises(ValueError, match=r"'prompt_template'.*not change after fit"):
        generate_with_probes(["Gold"], pipeline, max_new_tokens=1)


def test_copy_that_keeps_tokens_refuses_what_its_original_refuses(llama: str) -> None:
    embedder = fit(llama).keep_tokens()
    embedder.transform(TEXTS)
    with pytest.raises(ValueError, match=r"'pooling'.*not change after fit"):
        embedder.set_params(pooling="last").transform(TEXTS)
    embedder.set_params(pooling=None, pool_over="text")
    with pytest.raises(ValueError, match=r"'pool_over'.*not change after fit"):
        embedder.transform(TEXTS)


def test_pickle_of_an_earlier_release_is_read_as_it_stands(llama: str) -> None:
    embedder = fit(llama)
    expected = embedder.transform(TEXTS)
    del embedder._reading, embedder._fitted_source
    assert_array_equal(embedder.transform(TEXTS), expected)


def test_another_model_in_the_same_process_is_warned_of(
    llama: str,
    tmp_path: Path,
    save_model: Callable[[PreTrainedConfig, PreTrainedTokenizerFast], str],
) -> None:
    """A folder that has been moved is the same model, and another one is told."""
    moved = shutil.copytree(llama, tmp_path / "moved")
    embedder = fit(llama)
    expected = embedder.transform(TEXTS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = embedder.set_params(model_name=str(moved)).transform(TEXTS)
    assert_array_equal(found, expected)
    other = shutil.copytree(llama, tmp_path / "other")
    file = other / "tokenizer_config.json"
    file.write_text(file.read_text() + "\n")
    with pytest.warns(ProvenanceWarning, match="has changed since"):
        embedder.set_params(model_name=str(other)).transform(TEXTS)


def test_other_adapter_is_warned_of(llama: str) -> None:
    embedder = fit(llama)
    embedder.set_params(adapter="/moved/adapter")
    with pytest.warns(ProvenanceWarning, match=r"'adapter'.*was None in fit"):
        embedder.selected_tokens(TEXTS)
