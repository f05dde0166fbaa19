import subprocess
from pathlib import Path

import gguf
import numpy as np
import peft
import pytest
import torch
import transformers
from _adapted import read_blocks, train_adapter
from _in_process import forget_conversions
from numpy.testing import assert_allclose

from plug_sklearn import HFEmbeddingTransformer
from plug_sklearn.embedding import release_models
from plug_sklearn.embedding.models import ModelSource

TEXTS = ["a b a", "b", "abab"]
# Characters, as byte-level tokenizers spell them, and one merge.
TOKENS = ["<unk>", "<s>", "</s>", "a", "b", "c", "Ġ", "ab"]
HIDDEN, N_LAYERS = 32, 2


GGUF = "plug_sklearn.embedding.models._gguf"


def convert(file: Path) -> str | None:
    """Convert a file; gives the folder, or None if the file itself is loaded."""
    place, arguments = ModelSource(str(file)).loading_arguments()
    return None if "gguf_file" in arguments else place


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of conversions, whatever this machine's own holds."""
    forget_conversions()
    monkeypatch.setattr(f"{GGUF}.CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def llama_gguf(tmp_path: Path) -> Path:
    """A tiny random Llama in a GGUF file, half of it quantized."""
    path = tmp_path / "tiny.gguf"
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(N_LAYERS)
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(TOKENS)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    shapes = {"token_embd": (len(TOKENS), HIDDEN), "output_norm": (HIDDEN,)}
    for layer in range(N_LAYERS):
        names = ("attn_q", "attn_k", "attn_v", "attn_output")
        shapes |= {f"blk.{layer}.{name}": (HIDDEN, HIDDEN) for name in names}
        shapes |= {f"blk.{layer}.ffn_{name}": (64, HIDDEN) for name in ("gate", "up")}
        shapes[f"blk.{layer}.ffn_down"] = (HIDDEN, 64)
        shapes |= {f"blk.{layer}.{name}_norm": (HIDDEN,) for name in ("attn", "ffn")}
    for name, shape in shapes.items():
        weights = rng.standard_normal(shape).astype(np.float32)
        kind = gguf.GGMLQuantizationType.F32
        if "ffn" in name and len(shape) == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
        quantized = gguf.quantize(weights, kind)
        writer.add_tensor(f"{name}.weight", quantized, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def embed(path: Path, adapter: Path | None = None) -> np.ndarray:
    release_models()
    embedder = HFEmbeddingTransformer(path, adapter=adapter, device="cpu")
    return embedder.fit_transform(TEXTS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_folder_holds_what_transformers_reads_from_the_file(
    llama_gguf: Path, cache: Path, dtype: torch.dtype
) -> None:
    folder = convert(llama_gguf)
    assert folder is not None
    place, name = str(llama_gguf.parent), llama_gguf.name
    read = transformers.AutoModel.from_pretrained(place, gguf_file=name, dtype=dtype)
    converted = transformers.AutoModel.from_pretrained(folder, dtype=dtype)
    expected, found = read.state_dict(), converted.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    tokenizers = [
        transformers.AutoTokenizer.from_pretrained(place, gguf_file=name),
        transformers.AutoTokenizer.from_pretrained(folder),
    ]
    one, other = (
        [tokenize(text).input_ids for text in TEXTS] for tokenize in tokenizers
    )
    assert one == other


def test_a_file_is_converted_once_and_told_in_one_line(
    llama_gguf: Path, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = embed(llama_gguf)
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("Converting tiny.gguf to safetensors, once: ")
    forget_conversions()
    assert np.array_equal(embed(llama_gguf), first)
    assert capfd.readouterr() == ("", "")


def test_another_file_of_the_same_name_is_another_model(
    llama_gguf: Path, cache: Path
) -> None:
    folder = convert(llama_gguf)
    content = bytearray(llama_gguf.read_bytes())
    content[-5] ^= 1
    llama_gguf.write_bytes(content)
    assert convert(llama_gguf) not in (folder, None)


def test_a_file_that_cannot_be_converted_is_read_as_it_is(
    llama_gguf: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    expected = embed(llama_gguf)
    forget_conversions()
    no_folder = llama_gguf.with_name("file")
    no_folder.write_text("")
    monkeypatch.setattr(f"{GGUF}.CACHE", no_folder)
    capfd.readouterr()
    assert np.array_equal(embed(llama_gguf), expected)
    assert (
        "tiny.gguf cannot be converted, and is loaded as it is"
        in capfd.readouterr().err
    )


def test_a_conversion_that_ends_early_leaves_nothing(
    llama_gguf: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(command: list[str], **kwargs: object) -> None:
        (Path(command[-1]) / "config.json").write_text("{}")
        raise subprocess.CalledProcessError(-9, command, stderr="")

    monkeypatch.setattr(subprocess, "run", die)
    assert convert(llama_gguf) is None
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def test_a_large_file_is_not_converted(
    llama_gguf: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{GGUF}.LARGEST", llama_gguf.stat().st_size - 1)
    assert convert(llama_gguf) is None
    assert embed(llama_gguf).shape == (len(TEXTS), N_LAYERS, 1, HIDDEN)
    assert not cache.exists()


def test_a_file_without_all_weights_is_not_converted(
    llama_gguf: Path, cache: Path
) -> None:
    content = llama_gguf.read_bytes()
    llama_gguf.write_bytes(
        content.replace(b"blk.1.ffn_up.weight", b"blk.1.ffn_ux.weight")
    )
    assert convert(llama_gguf) is None


def test_a_file_without_all_weights_is_not_read(llama_gguf: Path, cache: Path) -> None:
    content = llama_gguf.read_bytes()
    llama_gguf.write_bytes(
        content.replace(b"blk.1.ffn_up.weight", b"blk.1.ffn_ux.weight")
    )
    message = r"'model_name'.*1 weights.*the first is 'layers\.1\.mlp\.up_proj\.weight'"
    with pytest.raises(ValueError, match=message):
        embed(llama_gguf)


def test_adapter_of_a_causal_model_is_applied(
    llama_gguf: Path, cache: Path, tmp_path: Path
) -> None:
    folder = str(convert(llama_gguf))
    adapter = tmp_path / "adapter"
    config = peft.LoraConfig(r=2, target_modules=["q_proj"])
    adapted = train_adapter("AutoModelForCausalLM", folder, adapter, config)
    blocks = "base_model.model.model.layers"
    expected = read_blocks(adapted, blocks, folder, TEXTS)
    assert_allclose(embed(llama_gguf, adapter), expected, rtol=1e-4, atol=1e-4)
    assert not np.allclose(embed(llama_gguf), expected, atol=0.1)


@pytest.mark.parametrize("named_in", ["model_name", "model_kwargs"])
def test_a_missing_extra_is_named_however_the_file_is(
    llama_gguf: Path, cache: Path, named_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plug_sklearn._packages.find_spec", lambda name: None)
    kwargs = {"gguf_file": llama_gguf.name} if named_in == "model_kwargs" else None
    name = llama_gguf.parent if kwargs else llama_gguf
    embedder = HFEmbeddingTransformer(name, model_kwargs=kwargs, device="cpu")
    with pytest.raises(ImportError, match=r"plug_sklearn with its extra \[gguf\]"):
        embedder.fit(TEXTS)
