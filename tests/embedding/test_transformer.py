import doctest
import inspect
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import peft
import polars as pl
import pytest
import torch
import transformers
from _in_process import list_models, record_computed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline

from plug_sklearn import HFEmbeddingTransformer, LayerAggregator
from plug_sklearn.embedding import release_models

TEXTS = ["The city of Paris", "is in France.", "Gold!", "The city of Lima is in Peru."]
ALL_PARTS = ("rs", "attn", "mlp")


def embed(folder: str, texts: object = TEXTS, **parameters: object) -> np.ndarray:
    parameters = {"device": "cpu", **parameters}
    return HFEmbeddingTransformer(folder, **parameters).fit_transform(texts)


def reference(folder: str, text: str) -> list[torch.Tensor]:
    """Every hidden state of a text that runs alone, from the model's own outputs."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        output = model(
            **tokenizer(text, return_tensors="pt"), output_hidden_states=True
        )
    return [state[0] for state in output.hidden_states]


def test_residual_stream_is_the_model_s_hidden_state_before_the_final_norm(
    llama: str,
) -> None:
    activations = embed(llama)
    for row, text in enumerate(TEXTS):
        states = reference(llama, text)
        assert_allclose(activations[row, 0, 0], states[1][-1], rtol=1e-5, atol=1e-5)
        assert_allclose(activations[row, 1, 0], states[2][-1], rtol=1e-5, atol=1e-5)
        model = transformers.AutoModel.from_pretrained(llama)
        last = torch.tensor(activations[row, 2, 0])
        normed = model.norm(last).detach()
        assert_allclose(normed, states[3][-1], rtol=1e-4, atol=1e-5)
        assert not np.allclose(last, states[3][-1], rtol=1e-2)


def test_parts_sum_to_the_change_of_the_residual_stream(llama: str) -> None:
    activations = embed(llama, parts=ALL_PARTS)
    change = activations[:, 1:, 0] - activations[:, :-1, 0]
    assert_allclose(change, activations[:, 1:, 1:].sum(axis=2), rtol=1e-4, atol=1e-4)


def test_parts_follow_the_order_given(llama: str) -> None:
    assert_allclose(
        embed(llama, parts=("mlp", "rs")), embed(llama, parts=ALL_PARTS)[:, :, [2, 0]]
    )


@pytest.mark.parametrize("layers", [1, [1], (-2,), np.array([1]), range(1, 2)])
def test_layers_take_ints_from_either_end(llama: str, layers: object) -> None:
    assert_allclose(embed(llama, layers=layers), embed(llama)[:, [1]], rtol=1e-6)


def test_layers_follow_the_order_given(llama: str) -> None:
    assert_allclose(embed(llama, layers=[2, 0]), embed(llama)[:, [2, 0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("pooling", "pool"),
    [
        ("last", lambda states: states[-1]),
        ("first", lambda states: states[0]),
        ("mean", lambda states: states.mean(dim=0)),
        ("max", lambda states: states.amax(dim=0)),
    ],
)
@pytest.mark.parametrize("family", ["llama", "bert"])
def test_pooling_is_over_the_text_s_own_tokens(
    request: pytest.FixtureRequest,
    family: str,
    pooling: str,
    pool: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    folder = request.getfixturevalue(family)
    activations = embed(folder, layers=0, pooling=pooling)[:, 0, 0]
    expected = torch.stack([pool(reference(folder, text)[1]) for text in TEXTS])
    assert_allclose(activations, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "bert", "t5"])
@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
def test_batch_size_changes_nothing(
    request: pytest.FixtureRequest, family: str, pooling: str
) -> None:
    folder = request.getfixturevalue(family)
    together, alone = (
        embed(folder, parts=ALL_PARTS, pooling=pooling, batch_tokens=budget)
        for budget in (10_000, 1)
    )
    assert_allclose(together, alone, rtol=1e-5, atol=1e-5)


def test_padding_side_changes_nothing(llama: str, left_padding_llama: str) -> None:
    assert_allclose(embed(llama), embed(left_padding_llama), rtol=1e-6)


@settings(
    max_examples=20,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(rows=st.lists(st.integers(0, len(TEXTS) - 1), min_size=1, max_size=8))
def test_order_and_duplicates_change_nothing(llama: str, rows: list[int]) -> None:
    expected = embed(llama)[rows]
    assert_allclose(
        embed(llama, [TEXTS[row] for row in rows]), expected, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    "container",
    [
        tuple,
        np.array,
        lambda texts: np.array(texts, dtype=object),
        lambda texts: np.array(texts)[:, None],
        pd.Series,
        lambda texts: pd.Series(texts, dtype="category"),
        lambda texts: pd.Series(texts, index=[9, 8, 7, 6]),
        lambda texts: pd.DataFrame({"text": texts}),
        pl.Series,
        lambda texts: pl.DataFrame({"text": texts}),
    ],
)
def test_every_container_gives_the_same_array(
    llama: str, container: Callable[[list[str]], object]
) -> None:
    np.testing.assert_array_equal(embed(llama, container(TEXTS)), embed(llama))


def test_decoder_stack_reads_the_start_token_and_then_the_text(t5: str) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(t5)
    model = transformers.AutoModel.from_pretrained(t5).eval()
    ids = tokenizer("Gold has", return_tensors="pt").input_ids
    start = torch.zeros(1, 1, dtype=torch.int64)
    with torch.no_grad():
        output = model(
            input_ids=ids,
            decoder_input_ids=torch.cat([start, ids], dim=1),
            output_hidden_states=True,
        )
    states = output.decoder_hidden_states
    for pooling, position in (("first", 0), ("last", -1)):
        activations = embed(t5, ["Gold has"], stack="decoder", pooling=pooling)
        assert activations.shape == (1, 3, 1, 16)
        assert_allclose(
            activations[0, 1, 0], states[2][0, position], rtol=1e-5, atol=1e-5
        )


def test_auto_stack_is_the_encoder(t5: str) -> None:
    activations = embed(t5)
    assert activations.shape == (4, 2, 1, 16)
    np.testing.assert_array_equal(activations, embed(t5, stack="encoder"))


def test_activations_are_float32_whatever_the_model_s_dtype(llama: str) -> None:
    activations = embed(llama, dtype="bfloat16")
    assert activations.dtype == np.float32
    assert_allclose(activations, embed(llama), rtol=0.2, atol=0.2)


def test_wrong_parts_are_refused_before_the_model_is_looked_for() -> None:
    with pytest.raises(ValueError, match=r"'parts' .* Got \['residual'\] instead"):
        HFEmbeddingTransformer("no/such-model", parts=["residual"]).fit(TEXTS)


def test_fit_loads_no_weights(llama: str) -> None:
    release_models()
    HFEmbeddingTransformer(llama).fit(TEXTS)
    assert not list_models()


def test_clones_share_one_copy_of_the_model(
    llama: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    release_models()
    loads = []
    load = transformers.AutoModel.from_pretrained
    monkeypatch.setattr(
        transformers.AutoModel,
        "from_pretrained",
        lambda *args, **kwargs: loads.append(args) or load(*args, **kwargs),
    )
    embedder = HFEmbeddingTransformer(llama, device="cpu")
    for copy in (embedder, clone(embedder), clone(embedder).set_params(layers=[0])):
        copy.fit_transform(TEXTS)
    assert len(loads) == 1


def test_pickle_is_small_and_gives_the_same_activations(llama: str) -> None:
    embedder = HFEmbeddingTransformer(llama, device="cpu").fit(TEXTS)
    expected = embedder.transform(TEXTS)
    pickled = pickle.dumps(embedder)
    assert len(pickled) < 100_000
    np.testing.assert_array_equal(pickle.loads(pickled).transform(TEXTS), expected)


def test_no_hook_stays_on_the_model(llama: str) -> None:
    embed(llama, parts=ALL_PARTS)
    loaded = list_models()[llama]
    fresh = transformers.AutoModel.from_pretrained(llama)
    n_hooks, n_own = (
        sum(len(module._forward_hooks) for module in model.modules())
        for model in (loaded.model, fresh)
    )
    assert n_hooks == n_own


def test_global_generators_stay_as_they_were(llama: str) -> None:
    release_models()
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 - the global generator is what is tested
    embed(llama)
    assert torch.equal(before[0], torch.random.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002 - as above


def test_feature_names_say_layer_part_and_unit(llama: str) -> None:
    embedder = HFEmbeddingTransformer(llama, layers=[0, 2], parts=("rs", "mlp"))
    names = embedder.fit(TEXTS).get_feature_names_out()
    assert len(names) == 2 * 2 * 16
    assert [names[0], names[17], names[-1]] == ["L0_rs_0", "L0_mlp_1", "L2_mlp_15"]


def test_pipeline_names_its_features_after_the_model_s_layers(llama: str) -> None:
    pipe = make_pipeline(
        HFEmbeddingTransformer(llama, layers=[1], device="cpu"), LayerAggregator()
    ).fit(TEXTS)
    assert list(pipe.get_feature_names_out()[:2]) == ["L1_rs_0", "L1_rs_1"]


def test_pipeline_s_set_output_reaches_the_features(llama: str) -> None:
    pipe = make_pipeline(
        HFEmbeddingTransformer(llama, layers=[1], device="cpu"), LayerAggregator()
    ).set_output(transform="pandas")
    frame = pipe.fit_transform(pd.Series(TEXTS, index=[9, 8, 7, 6]))
    assert isinstance(frame, pd.DataFrame)
    assert frame.shape == (4, 16)


def test_set_output_refuses_unknown_containers(llama: str) -> None:
    with pytest.raises(ValueError, match=r"'transform'.*Got 'frame'"):
        HFEmbeddingTransformer(llama).set_output(transform="frame")


def test_grid_search_over_either_step_s_layers_scores_alike(llama: str) -> None:
    texts = [
        f"The city of {name} is in {where}." for name in "abcdef" for where in "xy"
    ]
    labels = [where == "x" for name in "abcdef" for where in "xy"]
    scores = []
    for grid in ("hfembeddingtransformer__layers", "layeraggregator__layers"):
        pipe = make_pipeline(
            HFEmbeddingTransformer(llama, device="cpu"),
            LayerAggregator(),
            LogisticRegression(max_iter=1000),
        )
        search = GridSearchCV(pipe, {grid: [[0], [1], [2]]}, cv=2, scoring="roc_auc")
        scores.append(search.fit(texts, labels).cv_results_["mean_test_score"])
    assert_allclose(scores[0], scores[1])


def test_cross_validation_takes_texts(llama: str) -> None:
    pipe = make_pipeline(
        HFEmbeddingTransformer(llama, device="cpu"),
        LayerAggregator(),
        LogisticRegression(max_iter=1000),
    )
    scores = cross_val_score(pipe, TEXTS * 3, [0, 1, 0, 1] * 3, cv=3)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        ([], ValueError, "at least one text"),
        (None, TypeError, "Got None instead"),
        (3, TypeError, "Got 3 instead"),
        ("one text", TypeError, "Got 'one text' instead"),
        (["a", None], TypeError, "Got None .NoneType. at position 1"),
        (["a", 5], TypeError, "Got 5 .int. at position 1"),
        (["a", float("nan")], TypeError, "Got nan .float. at position 1"),
        ([b"a"], TypeError, "Got b'a' .bytes. at position 0"),
        ([["a", "b"]], TypeError, r"Got \['a', 'b'\] .list. at position 0"),
        (pd.DataFrame({"a": ["x"], "b": ["y"]}), ValueError, r"shape \(1, 2\)"),
        (np.zeros((2, 3, 4)), ValueError, r"shape \(2, 3, 4\)"),
        (["a", ""], ValueError, "at least one token. Got 1 of 2 texts"),
    ],
)
def test_bad_texts_are_refused_by_name(
    llama: str, texts: object, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"X given to HFEmbeddingTransformer.*{message}"):
        embed(llama, texts)


def test_empty_text_is_its_special_tokens_where_the_tokenizer_adds_some(
    bert: str,
) -> None:
    embedder = HFEmbeddingTransformer(bert, pooling="mean", device="cpu").fit(["a"])
    assert embedder.selected_tokens([""]) == [["<cls>", "<sep>"]]
    assert np.isfinite(embedder.transform([""])).all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"layers": [3]}, r"'layers'.*positions in \[0, 3\).*Got \[3\]"),
        ({"layers": "last"}, "'layers'.*Got 'last'"),
        ({"layers": []}, r"'layers'.*at least one.*Got \[\]"),
        ({"layers": [0, -3]}, r"'layers'.*distinct positions.*Got \[0, -3\]"),
        ({"layers": 1.5}, r"'layers'.*Got 1\.5"),
        ({"parts": "rs"}, "'parts'.*sequence.*Got 'rs'"),
        ({"parts": ("rs", "rs")}, "'parts'.*distinct parts"),
        ({"parts": ("resid",)}, "'parts'.*Got .'resid'"),
        ({"parts": ()}, "'parts'"),
        ({"parts": ("mlp", "attn", "rs")}, r"'parts'.*the order \('rs'"),
        ({"pooling": "lst"}, "'pooling'.*Got 'lst'"),
        ({"pooling": np.array("last")}, r"'pooling'.*Got array\('last'"),
        ({"parts": np.array("rs")}, r"'parts'.*Got array\('rs'"),
        ({"roles": np.array("user")}, r"'roles'.*Got array\('user'"),
        ({"token_filter": "text"}, "'token_filter'.*Got 'text'"),
        ({"prompt_template": "Is it true?"}, "'prompt_template'.*contains {text}"),
        ({"stack": "decoder"}, "'stack'.*must be 'auto'.*llama"),
        ({"batch_tokens": 0}, "'batch_tokens'.*Got 0"),
        ({"dtype": "int8"}, "'dtype'.*Got 'int8'"),
        ({"device": "gpu"}, "'device'.*Got 'gpu'"),
        ({"max_length": 65}, "'max_length'.*at most 64 tokens.*Got 65"),
        ({"eos_token": "<end>"}, "'eos_token'.*Got '<end>'"),
        ({"model_name": 3}, "'model_name'.*Got 3"),
        ({"verbose": "yes"}, "'verbose'.*Got 'yes'"),
        ({"store": __file__}, "'store'.*folder.*Got .*, which is a file"),
    ],
)
def test_bad_parameters_are_refused_by_name(
    llama: str, parameters: dict[str, object], message: str
) -> None:
    embedder = HFEmbeddingTransformer(llama, device="cpu").set_params(**parameters)
    with pytest.raises(ValueError, match=message):
        embedder.fit_transform(TEXTS)


@pytest.mark.parametrize(
    "parameters",
    [
        {"special_tokens": "litteral"},
        {"pooling": "sum"},
        {"truncation_side": "Left"},
        {"prompt_template": "no slot"},
    ],
)
def test_parameter_set_after_fit_is_checked(
    llama: str, parameters: dict[str, object]
) -> None:
    embedder = HFEmbeddingTransformer(llama, device="cpu").fit(TEXTS)
    embedder.set_params(**parameters)
    for method in (embedder.transform, embedder.selected_tokens):
        with pytest.raises(ValueError, match=f"'{next(iter(parameters))}'"):
            method(TEXTS)


def test_generator_of_texts_is_refused(llama: str) -> None:
    with pytest.raises(TypeError, match="must be a list"):
        embed(llama, (text for text in TEXTS))


def test_missing_gguf_file_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"'model_name'.*no_such\.gguf"):
        embed("no_such.gguf")


def test_paths_may_begin_with_the_home_folder(
    llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(llama, "model")
    shutil.copytree(llama, "adapter")
    lora = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    with torch.random.fork_rng(devices=[]):
        model = transformers.AutoModel.from_pretrained(llama)
        peft.get_peft_model(model, lora).save_pretrained("adapter")
    expected = embed(llama, adapter="adapter")
    for kind in (str, Path):
        home = kind("~/model"), kind("~/adapter"), kind("~/store")
        found = embed(home[0], adapter=home[1], store=home[2])
        assert_allclose(found, expected)
    fitted = HFEmbeddingTransformer("~/model", store="~/store").fit(TEXTS)
    assert_allclose(pickle.loads(pickle.dumps(fitted)).transform(TEXTS), embed(llama))
    offloaded = {"device_map": {"": "disk"}, "offload_folder": "~/offload"}
    found = embed(llama, model_kwargs=offloaded)
    assert_allclose(found, embed(llama), rtol=1e-4, atol=1e-5)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"model", "adapter", "store", "offload"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_absent_cuda_warns_and_falls_back(llama: str) -> None:
    with pytest.warns(UserWarning, match=r"device='cuda'.*not available"):
        activations = embed(llama, device="cuda")
    np.testing.assert_array_equal(activations, embed(llama))


def test_overflow_is_an_error_that_names_the_layer(
    llama: str, save_model: Callable[..., str], byte_tokenizer: Callable[..., object]
) -> None:
    model = transformers.AutoModel.from_pretrained(llama)
    model.layers[1].mlp.down_proj.weight.data.mul_(1e6)
    folder = save_model(model.config, byte_tokenizer())
    model.save_pretrained(folder)
    with pytest.raises(FloatingPointError, match=r"layer 1 .*float16.*'bfloat16'"):
        embed(folder, dtype="float16")


@pytest.mark.parametrize(
    ("n_jobs", "stored"), [(None, False), (None, True), (2, False)]
)
def test_overflow_is_an_error_that_names_the_texts(
    llama: str,
    save_model: Callable[..., str],
    byte_tokenizer: Callable[..., object],
    tmp_path: Path,
    n_jobs: int | None,
    stored: bool,
) -> None:
    """Texts that share a pass with them are not named."""
    tokenizer = byte_tokenizer()
    model = transformers.AutoModel.from_pretrained(llama)
    model.embed_tokens.weight.data[tokenizer.encode("!")] = 1e5
    folder = save_model(model.config, tokenizer)
    model.save_pretrained(folder)
    texts = [*TEXTS, "Iron!", "Gold!", "Iron", *(f"{n}!" for n in range(4))]
    options = {"dtype": "float16", "n_jobs": n_jobs}
    options |= {"store": tmp_path / "store"} if stored else {}
    message = r"at least 7 of 11 texts, at positions \[2, 4, 5, 7, 8, \.\.\.\]. The f"
    if n_jobs is not None:
        # Each worker tells of its own texts.
        message = r"at least [1-7] of 11 texts, at positions \[\d"
    with (
        joblib.parallel_config("threading"),
        pytest.raises(FloatingPointError, match=message),
    ):
        embed(folder, texts, **options)
    finite = [text for text in texts if "!" not in text]
    assert np.isfinite(embed(folder, finite, dtype="float16")).all()


def test_out_of_memory_halves_the_batch(
    llama: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = embed(llama)
    forward = transformers.LlamaModel.forward
    sizes = []

    def forward_with_little_memory(
        self: transformers.LlamaModel, input_ids: torch.Tensor, **inputs: object
    ) -> object:
        sizes.append(len(input_ids))
        if len(input_ids) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, input_ids, **inputs)

    monkeypatch.setattr(transformers.LlamaModel, "forward", forward_with_little_memory)
    release_models()
    assert_allclose(embed(llama), expected, rtol=1e-5, atol=1e-5)
    assert {1} < set(sizes)


def test_example_of_the_docstring_runs(
    llama: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run it, which names a model of the hub, with a local one in its place."""
    for auto in ("AutoConfig", "AutoModel", "AutoTokenizer"):
        load = getattr(transformers, auto).from_pretrained
        monkeypatch.setattr(
            getattr(transformers, auto),
            "from_pretrained",
            lambda name, load=load, **arguments: load(llama, **arguments),
        )
    monkeypatch.setattr(
        "plug_sklearn.embedding.models._sources.cached_file",
        lambda *args, **kwargs: "config.json",
    )
    text = inspect.getdoc(HFEmbeddingTransformer).replace("# doctest: +SKIP", "")
    example = doctest.DocTestParser().get_doctest(text, {}, "example", None, None)
    results = doctest.DocTestRunner().run(example)
    assert results.failed == 0 < results.attempted


def test_progress_bar_counts_texts_on_a_terminal(
    llama: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plug_sklearn.embedding._transformer._QUICK", 0.0)
    embed(llama, verbose=True)
    assert "4/4" not in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    embed(llama, verbose=True)
    assert "4/4" in capsys.readouterr().err


def test_what_is_loaded_writes_no_store_unless_it_is_told_to(
    llama: str, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    embedder = HFEmbeddingTransformer(llama, store=str(store), verbose=True)
    assert pickle.loads(pickle.dumps(embedder)).store == str(store)
    loaded = pickle.loads(pickle.dumps(embedder.fit(TEXTS)))
    assert embedder.store == str(store)
    assert (loaded.store, loaded.verbose) == (None, False)
    loaded.transform(TEXTS)
    assert not store.exists()
    loaded.set_params(store=str(store)).transform(TEXTS)
    assert store.exists()


def test_labels_of_another_number_are_refused_in_fit(llama: str) -> None:
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        HFEmbeddingTransformer(llama).fit_transform(TEXTS, [0])


@pytest.mark.parametrize(
    "y",
    [
        [0, None, 1, 0],
        [0.0, 1.0, float("nan"), 1.0],
        np.array([0, 1, np.nan, 1], dtype=np.float32),
        pd.Series(["a", "b", None, "a"]),
        pd.Series([1, 0, None, 1], dtype="Int64"),
    ],
)
def test_missing_labels_are_refused_before_a_text_is_read(
    llama: str, monkeypatch: pytest.MonkeyPatch, y: object
) -> None:
    seen = record_computed(monkeypatch)
    with pytest.raises(ValueError, match=r"'y'.*each text\. Got 1 missing.*\[[12]\]"):
        HFEmbeddingTransformer(llama, device="cpu").fit_transform(TEXTS, y)
    assert not seen


@pytest.mark.parametrize(
    "y", [[1, 1, 1, 1], [0.5, 1, 2, 3], np.ones((4, 2)), [[0, 1], [1], [0], [1, 1]]]
)
def test_labels_that_some_step_may_take_are_no_matter(llama: str, y: object) -> None:
    HFEmbeddingTransformer(llama, device="cpu").fit(TEXTS, y)


def test_open_prompts_need_a_chat_template(llama: str) -> None:
    embedder = HFEmbeddingTransformer(llama, device="cpu", generation_prompt=True)
    with pytest.raises(ValueError, match=r"'generation_prompt'.*chat_template=True"):
        embedder.fit(TEXTS)
    said = [{"role": "user", "content": "Gold"}]
    embedder.fit([said]).transform([said])
    embedder.set_params(chat_template=True).fit(TEXTS)


@pytest.mark.parametrize("adapter", ["/no/adapter", __file__])
def test_path_of_no_adapter_is_refused_in_fit(llama: str, adapter: str) -> None:
    embedder = HFEmbeddingTransformer(llama, device="cpu", adapter=adapter)
    with pytest.raises(FileNotFoundError, match=r"'adapter'.*existing folder"):
        embedder.fit(TEXTS)
