import base64
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
import transformers
from _hub import COMMIT, fill_cache
from _in_process import list_models, record_loads
from numpy.testing import assert_allclose, assert_array_equal
from transformers.integrations.mistral import tokenizer as mistral
from transformers.utils import logging

from plug_sklearn import HFEmbeddingTransformer
from plug_sklearn.embedding import release_models
from plug_sklearn.embedding.models import (
    ModelSource,
    WeightOptions,
    find_commit,
    load_model,
    load_tokenizer,
)

TEXTS = ["The city of Paris", "Gold!"]
CPU = WeightOptions(torch.device("cpu"), torch.float32)


def embed(folder: str | Path, **parameters: object) -> np.ndarray:
    embedder = HFEmbeddingTransformer(folder, device="cpu", **parameters)
    return embedder.fit_transform(TEXTS)


@pytest.fixture
def copy_of_llama(llama: str, tmp_path: Path) -> Path:
    model = transformers.AutoModel.from_pretrained(llama)
    model.save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(llama).save_pretrained(tmp_path)
    return tmp_path


def test_model_is_ready_to_be_read(llama: str) -> None:
    model = load_model(ModelSource(llama), CPU).model
    assert not model.training
    assert not any(weight.requires_grad for weight in model.parameters())
    assert model.config.use_cache is False


def test_threads_that_want_one_model_load_it_once(
    llama: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    release_models()
    loads = record_loads(monkeypatch)
    with ThreadPoolExecutor(8) as pool:
        taken = list(
            pool.map(lambda _: load_model(ModelSource(llama), CPU).model, range(16))
        )
    assert len(loads) == 1
    assert all(model is taken[0] for model in taken)


def test_the_last_models_used_are_kept(llama: str, bert: str, t5: str) -> None:
    release_models()
    for folder in (llama, bert, llama, t5):
        load_model(ModelSource(folder), CPU)
    kept = list(list_models())
    assert kept == [llama, t5]


def test_a_folder_written_again_is_loaded_again(copy_of_llama: Path) -> None:
    before = embed(copy_of_llama)
    model = transformers.AutoModel.from_pretrained(copy_of_llama)
    model.embed_tokens.weight.data.mul_(2)
    model.save_pretrained(copy_of_llama)
    assert not np.allclose(embed(copy_of_llama), before)


@pytest.mark.parametrize("task", ["CAUSAL_LM", "FEATURE_EXTRACTION"])
def test_adapter_changes_activations_as_merging_it_by_hand_does(
    llama: str, tmp_path: Path, task: str
) -> None:
    whole = task == "CAUSAL_LM"
    auto = transformers.AutoModelForCausalLM if whole else transformers.AutoModel
    lora = peft.LoraConfig(
        r=2, lora_alpha=6, target_modules=["q_proj", "down_proj"], task_type=task
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        adapted = peft.get_peft_model(auto.from_pretrained(llama), lora)
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight.data.normal_()
    adapted.save_pretrained(tmp_path / "adapter")
    merged = transformers.AutoModel.from_pretrained(llama)
    for layer, block in enumerate(merged.layers):
        for module in ("self_attn.q_proj", "mlp.down_proj"):
            path = f"{'model.' if whole else ''}layers.{layer}.{module}"
            trained = adapted.base_model.model.get_submodule(path)
            up, down = trained.lora_B["default"], trained.lora_A["default"]
            block.get_submodule(module).weight.data += (
                6 / 2 * up.weight.data @ down.weight.data
            )
    merged.save_pretrained(tmp_path / "merged")
    transformers.AutoTokenizer.from_pretrained(llama).save_pretrained(
        tmp_path / "merged"
    )
    with_adapter = embed(llama, adapter=str(tmp_path / "adapter"))
    assert_allclose(with_adapter, embed(tmp_path / "merged"), rtol=1e-4, atol=1e-4)
    assert not np.allclose(with_adapter, embed(llama), atol=1e-2)


def test_pickled_weights_are_read_only_if_the_user_says_so(copy_of_llama: Path) -> None:
    expected = embed(copy_of_llama)
    model = transformers.AutoModel.from_pretrained(copy_of_llama)
    torch.save(model.state_dict(), copy_of_llama / "pytorch_model.bin")
    (copy_of_llama / "model.safetensors").unlink()
    with pytest.raises(OSError, match="safetensors"):
        embed(copy_of_llama)
    trusting = embed(copy_of_llama, model_kwargs={"use_safetensors": False})
    assert_allclose(trusting, expected)


def test_code_in_a_model_s_folder_does_not_run(copy_of_llama: Path) -> None:
    (copy_of_llama / "code.py").write_text("raise SystemExit('it ran')")
    config = copy_of_llama / "config.json"
    text = config.read_text().replace('"llama"', '"strange"')
    config.write_text(
        text.replace("{", '{"auto_map": {"AutoConfig": "code.Config"},', 1)
    )
    with pytest.raises(ValueError, match="trust_remote_code"):
        embed(copy_of_llama)


def test_mlp_that_would_run_in_chunks_is_read_whole(bert: str, tmp_path: Path) -> None:
    model = transformers.AutoModel.from_pretrained(bert)
    model.config.chunk_size_feed_forward = 1
    model.save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(bert).save_pretrained(tmp_path)
    parts = ("rs", "attn", "mlp")
    assert_allclose(embed(tmp_path, parts=parts), embed(bert, parts=parts), rtol=1e-5)


def test_model_kwargs_and_attention_reach_the_loader(llama: str) -> None:
    eager = embed(llama, attn_implementation="eager")
    model = list(list_models().values())[-1].model
    assert model.config._attn_implementation == "eager"
    by_kwargs = embed(llama, model_kwargs={"attn_implementation": "eager"})
    assert_allclose(eager, by_kwargs)


def test_model_spread_over_devices_gives_the_same(llama: str) -> None:
    spread = embed(llama, model_kwargs={"device_map": {"": "cpu"}})
    assert_allclose(spread, embed(llama), rtol=1e-6)


def test_hub_commit_is_read_from_the_cache_s_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commit = "0123456789abcdef" * 2 + "01234567"
    path = f"cache/models--a--b/snapshots/{commit}/config.json"
    monkeypatch.setattr(
        "plug_sklearn.embedding.models._sources.cached_file",
        lambda *args, **kwargs: path,
    )
    assert find_commit(ModelSource("a/b")) == commit


def test_local_folder_has_no_commit(llama: str) -> None:
    assert find_commit(ModelSource(llama)) is None


def test_arguments_that_locate_files_reach_configuration_and_tokenizer(
    llama: str, tmp_path: Path
) -> None:
    cached = fill_cache(tmp_path, "org/model", llama)
    inner = fill_cache(tmp_path, "org/inner", llama, subfolder="inner")
    expected = embed(llama)
    assert_array_equal(embed("org/model", model_kwargs=cached), expected)
    inner |= {"subfolder": "inner"}
    assert_array_equal(embed("org/inner", model_kwargs=inner), expected)
    local = tmp_path / "models--org--inner" / "snapshots" / COMMIT
    found = embed(local, model_kwargs={"subfolder": "inner"})
    assert_array_equal(found, expected)


@pytest.mark.parametrize("parameter", ["revision", "model_kwargs"])
def test_revision_is_the_one_asked_for_wherever_it_stands(
    llama: str, bert: str, tmp_path: Path, parameter: str
) -> None:
    cached = fill_cache(tmp_path, "org/model", llama)
    fill_cache(tmp_path, "org/model", bert, commit="f" * 40, revision="v2")
    parameters = {"model_kwargs": cached, "revision": "v2"}
    if parameter == "model_kwargs":
        parameters = {"model_kwargs": {**cached, "revision": "v2"}}
    embedder = HFEmbeddingTransformer("org/model", device="cpu", **parameters)
    assert_array_equal(embedder.fit_transform(TEXTS), embed(bert))
    assert embedder.model_revision_ == "f" * 40


def test_two_revisions_are_refused(llama: str) -> None:
    with pytest.raises(ValueError, match=r"'revision'.* 'v2'\. Got 'v1'"):
        embed(llama, revision="v1", model_kwargs={"revision": "v2"})


def test_model_that_may_not_be_fetched_is_named(llama: str, tmp_path: Path) -> None:
    cached = fill_cache(tmp_path, "org/model", llama)
    with pytest.raises(OSError, match=r"'org/other'.*is not on this machine"):
        embed("org/other", model_kwargs=cached)


def test_configuration_is_changed_as_the_model_s_is(llama: str) -> None:
    changed = embed(llama, model_kwargs={"num_hidden_layers": 2})
    assert_array_equal(changed, embed(llama, layers=[0, 1]))
    config = transformers.AutoConfig.from_pretrained(llama, num_hidden_layers=2)
    assert_array_equal(embed(llama, model_kwargs={"config": config}), changed)


def test_embeddings_that_are_offloaded_are_read(llama: str, tmp_path: Path) -> None:
    expected = embed(llama)
    places = {"layers": "cpu", "norm": "cpu", "rotary_emb": "cpu"}
    for device_map in ({"": "disk"}, {**places, "embed_tokens": "disk"}):
        offloaded = {"device_map": device_map, "offload_folder": tmp_path / "offload"}
        found = embed(llama, model_kwargs=offloaded)
        assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_gguf_file_is_named_to_the_loader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plug_sklearn.embedding.models._gguf.LARGEST", -1)
    (tmp_path / "model.GGUF").touch()
    name, arguments = ModelSource(str(tmp_path / "model.GGUF")).loading_arguments()
    assert name == str(tmp_path)
    assert arguments["gguf_file"] == "model.GGUF"


def test_revision_reaches_the_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    reachable = "plug_sklearn.embedding.models._sources.is_hub_reachable"
    monkeypatch.setattr(reachable, lambda: True)
    _, arguments = ModelSource("a/b", revision="v2").loading_arguments()
    assert arguments == {"revision": "v2", "trust_remote_code": False}


def test_release_frees_the_models(llama: str, save_model: Callable[..., str]) -> None:
    load_model(ModelSource(llama), CPU)
    release_models()
    assert not list_models()


def test_an_adapter_written_again_is_loaded_again(llama: str, tmp_path: Path) -> None:
    lora = peft.LoraConfig(
        r=2, target_modules=["q_proj"], task_type="FEATURE_EXTRACTION"
    )
    found = []
    for scale in (1.0, 5.0):
        with torch.random.fork_rng(devices=[]):
            model = transformers.AutoModel.from_pretrained(llama)
            adapted = peft.get_peft_model(model, lora)
            for name, weight in adapted.named_parameters():
                if "lora_" in name:
                    weight.data.fill_(scale)
        adapted.save_pretrained(tmp_path)
        found.append(embed(llama, adapter=str(tmp_path)))
    assert not np.allclose(*found)


def test_a_note_beside_the_weights_loads_nothing_again(
    copy_of_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = embed(copy_of_llama)
    (copy_of_llama / "notes.md").write_text("good weights")
    monkeypatch.delattr("plug_sklearn.embedding.models._loading._load_backbone")
    assert_allclose(embed(copy_of_llama), expected)


def test_transformers_bars_are_hidden_and_come_back(
    llama: str, capfd: pytest.CaptureFixture[str]
) -> None:
    release_models()
    load_model(ModelSource(llama), CPU)
    assert capfd.readouterr().err == ""
    transformers.AutoModel.from_pretrained(Path(llama))
    assert "Loading weights" in capfd.readouterr().err


def test_a_hook_of_the_user_comes_back(llama: str) -> None:
    def hook(make, args, kwargs):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - a stand-in
        return make(*args, **kwargs)

    before = logging.set_tqdm_hook(hook)
    try:
        release_models()
        load_model(ModelSource(llama), CPU)
        assert logging.set_tqdm_hook(before) is hook
    finally:
        logging.set_tqdm_hook(before)


SPECIAL = ["<unk>", "<s>", "</s>", "[INST]", "<pad>"]
PIECES = [*(bytes([i]) for i in range(256)), b"he", b"ll", b"hell", b"or", b"ld"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folder of a Mistral model whose tokenizer is its own file alone."""
    transformers.MistralConfig(vocab_size=300).save_pretrained(tmp_path)
    tekken = {
        "config": {
            "pattern": r"\s?\p{L}+|\s+|[^\s\p{L}]+",
            "num_vocab_tokens": len(PIECES),
            "default_vocab_size": len(PIECES) + len(SPECIAL),
            "default_num_special_tokens": len(SPECIAL),
            "version": "v3",
        },
        "vocab": [
            {"rank": rank, "token_bytes": base64.b64encode(piece).decode()}
            for rank, piece in enumerate(PIECES)
        ],
        "special_tokens": [
            {"rank": rank, "token_str": text, "is_control": True}
            for rank, text in enumerate(SPECIAL)
        ],
    }
    (tmp_path / "tekken.json").write_text(json.dumps(tekken))
    return tmp_path


def merge_pieces(text: bytes) -> list[int]:
    """Merge neighbours into the piece of the lowest rank until none is known."""
    pieces = [bytes([byte]) for byte in text]
    while True:
        joined = [a + b for a, b in pairwise(pieces)]
        known = [piece for piece in joined if piece in PIECES]
        if not known:
            return [len(SPECIAL) + PIECES.index(piece) for piece in pieces]
        place = joined.index(min(known, key=PIECES.index))
        pieces[place : place + 2] = [joined[place]]


def test_text_of_mistral_s_own_file_begins_with_its_first_token(folder: Path) -> None:
    tokenizer = load_tokenizer(ModelSource(str(folder)))
    expected = [1, *merge_pieces(b"hello"), *merge_pieces(b" world")]
    assert tokenizer("hello world")["input_ids"] == expected
    assert tokenizer("hello", add_special_tokens=False)["input_ids"] == expected[1:3]
    assert tokenizer("[INST]")["input_ids"] == [1, 3]


def test_special_tokens_of_mistral_s_own_file_have_names(folder: Path) -> None:
    tokenizer = load_tokenizer(ModelSource(str(folder)))
    assert tokenizer.bos_token_id == 1
    assert tokenizer.eos_token_id == 2
    assert tokenizer.pad_token_id == 4


def test_mistral_s_own_package_changes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load_tokenizer(ModelSource(str(folder)))
    monkeypatch.setattr(mistral, "is_mistral_common_available", lambda: True)
    (folder / "notes.txt").write_text("so that it is loaded again")
    tokenizer = load_tokenizer(ModelSource(str(folder)))
    assert tokenizer is not before
    assert type(tokenizer) is type(before)


def test_other_tokenizers_stay(llama: str) -> None:
    expected = transformers.AutoTokenizer.from_pretrained(llama)
    tokenizer = load_tokenizer(ModelSource(llama))
    assert tokenizer.backend_tokenizer.to_str() == expected.backend_tokenizer.to_str()
