"""Families whose blocks are laid out unlike others', against plain transformers."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
import transformers as hf
from numpy.testing import assert_allclose
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from plug_sklearn import HFEmbeddingTransformer

TEXTS = ["The city of Paris", "is in France.", "Gold!", "The city of Lima is in Peru."]
PARTS = ("rs", "attn", "mlp")
_SIZES = {"vocab_size": 330, "pad_token_id": 0}
_BERT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
_XLM = {"emb_dim": 32, "n_layers": 3, "n_heads": 4, "max_position_embeddings": 64}
CONFIGS: dict[str, Callable[[], hf.PreTrainedConfig]] = {
    "flaubert": lambda: hf.FlaubertConfig(**_SIZES, **_XLM),
    "fsmt": lambda: hf.FSMTConfig(
        src_vocab_size=330,
        tgt_vocab_size=330,
        langs=["en", "de"],
        d_model=32,
        encoder_layers=3,
        decoder_layers=2,
        encoder_ffn_dim=48,
        decoder_ffn_dim=40,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        max_position_embeddings=64,
        decoder_start_token_id=2,
    ),
    "openai-gpt": lambda: hf.OpenAIGPTConfig(
        vocab_size=330, n_embd=32, n_layer=3, n_head=4, n_positions=64
    ),
    "squeezebert": lambda: hf.SqueezeBertConfig(**_SIZES, **_BERT, embedding_size=32),
    "xlm": lambda: hf.XLMConfig(**_SIZES, **_XLM, n_langs=1),
    "xlnet": lambda: hf.XLNetConfig(
        **_SIZES, d_model=32, n_layer=3, n_head=4, d_inner=48
    ),
    "xmod": lambda: hf.XmodConfig(
        **_SIZES, **_BERT, languages=["en_XX"], default_language="en_XX"
    ),
}
#: The norms that follow attention and the MLP, by a block's number.
NORMS = {
    **dict.fromkeys(("flaubert", "xlm"), ("layer_norm1.{}", "layer_norm2.{}")),
    "fsmt, encoder": (
        "encoder.layers.{}.self_attn_layer_norm",
        "encoder.layers.{}.final_layer_norm",
    ),
    "openai-gpt": ("h.{}.ln_1", "h.{}.ln_2"),
    "squeezebert": (
        "encoder.layers.{}.post_attention.layernorm",
        "encoder.layers.{}.output.layernorm",
    ),
}


@pytest.fixture(scope="module")
def saved(
    save_model: Callable[..., str], byte_tokenizer: Callable[..., object]
) -> dict[str, str]:
    return {
        name: save_model(build(), byte_tokenizer()) for name, build in CONFIGS.items()
    }


def embed(folder: str, **parameters: object) -> np.ndarray:
    parameters = {"device": "cpu", **parameters}
    return HFEmbeddingTransformer(folder, **parameters).fit_transform(TEXTS)


def run_alone(folder: str, stack: str | None) -> Iterator[tuple[Tensor, ...]]:
    """Give the hidden states of each text, run by itself; the embeddings come first."""
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    model = hf.AutoModel.from_pretrained(folder).eval()
    for text in TEXTS:
        inputs = {"input_ids": torch.tensor([tokenizer(text)["input_ids"]])}
        if stack is not None:
            start = torch.tensor([[model.config.decoder_start_token_id]])
            ids = torch.cat([start, inputs["input_ids"]], dim=1)
            inputs["decoder_input_ids"] = ids
        with torch.no_grad():
            output = model(**inputs, output_hidden_states=True, use_cache=False)
        yield output[f"{stack}_hidden_states" if stack else "hidden_states"]


@pytest.mark.parametrize(
    ("name", "stack"),
    [
        *((name, None) for name in CONFIGS if name != "fsmt"),
        ("fsmt", "encoder"),
        ("fsmt", "decoder"),
    ],
)
@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_residual_stream_is_the_hidden_state_of_each_text_alone(
    saved: dict[str, str], name: str, stack: str | None, pooling: str
) -> None:
    found = embed(saved[name], pooling=pooling, stack=stack or "auto")
    for row, states in enumerate(run_alone(saved[name], stack)):
        for layer, state in enumerate(states[1:]):
            expected = state[0, -1] if pooling == "last" else state[0].mean(dim=0)
            assert_allclose(found[row, layer, 0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NORMS)
def test_parts_of_post_norm_blocks_are_added_before_their_norms(
    saved: dict[str, str], name: str
) -> None:
    family, _, stack = name.partition(", ")
    folder = saved[family]
    found = embed(folder, parts=PARTS, stack=stack or "auto")
    model = hf.AutoModel.from_pretrained(folder).eval()
    for row, states in enumerate(run_alone(folder, stack or None)):
        for layer, state in enumerate(states[:-1]):
            stream = state[0, -1]
            for part, path in zip((1, 2), NORMS[name], strict=True):
                added = torch.from_numpy(found[row, layer, part])
                stream = norm(model, path.format(layer), stream + added)
            assert_allclose(stream, found[row, layer, 0], rtol=1e-3, atol=1e-4)


def norm(model: PreTrainedModel, path: str, states: Tensor) -> Tensor:
    module = model.get_submodule(path)
    with torch.no_grad():
        return F.layer_norm(
            states, states.shape, module.weight, module.bias, module.eps
        )


def test_language_adapter_of_xmod_is_no_part_of_the_mlp(saved: dict[str, str]) -> None:
    found = embed(saved["xmod"], parts=PARTS)
    model = hf.AutoModel.from_pretrained(saved["xmod"]).eval()
    for row, states in enumerate(run_alone(saved["xmod"], None)):
        for layer, state in enumerate(states[:-1]):
            block = model.encoder.layer[layer]
            attn, mlp = map(torch.from_numpy, found[row, layer, 1:])
            with torch.no_grad():
                stream = block.attention.output.LayerNorm(state[0, -1] + attn)
                stream = block.output.LayerNorm(stream + mlp)
                stream = stream + block.output.adapter_modules["en_XX"](stream)
                stream = block.output.LayerNorm(stream)
            assert_allclose(stream, found[row, layer, 0], rtol=1e-3, atol=1e-4)


def test_xlnet_says_why_its_parts_are_unknown(saved: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="its attention adds outside of any module"):
        embed(saved["xlnet"], parts=PARTS)


LONG = ["ab " * 60, "Gold!", "xy z " * 40, "one two three four five six " * 8]


@pytest.mark.parametrize("family", ["big_bird", "bigbird_pegasus"])
def test_long_texts_run_through_the_sparse_attention_of_big_bird(
    save_model: Callable[..., str], byte_tokenizer: Callable[..., object], family: str
) -> None:
    """As in a model fresh from its files: a short text switches to full attention."""
    sizes = {"block_size": 4, "num_random_blocks": 1}
    config = (
        hf.BigBirdConfig(**_SIZES, **{**_BERT, "max_position_embeddings": 256}, **sizes)
        if family == "big_bird"
        else hf.BigBirdPegasusConfig(
            **_SIZES,
            **sizes,
            d_model=32,
            encoder_layers=3,
            decoder_layers=2,
            encoder_ffn_dim=48,
            decoder_ffn_dim=40,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            max_position_embeddings=256,
            decoder_start_token_id=2,
        )
    )
    folder = save_model(config, byte_tokenizer())
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    transformer = HFEmbeddingTransformer(folder, pooling="mean", device="cpu")
    found = transformer.fit_transform(LONG)
    n_sparse = 0
    for row, text in enumerate(LONG):
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        states = {}
        for kind in ("block_sparse", "original_full"):
            fresh = hf.AutoModel.from_pretrained(folder, attention_type=kind).eval()
            encoder = getattr(fresh, "encoder", fresh) if "peg" in family else fresh
            with torch.no_grad():
                output = encoder(input_ids=ids, output_hidden_states=True)
            states[kind] = output.hidden_states[2][0, : ids.shape[1]].mean(dim=0)
        assert_allclose(found[row, 1, 0], states["block_sparse"], rtol=1e-4, atol=1e-5)
        n_sparse += not torch.allclose(*states.values(), rtol=1e-2)
    assert n_sparse == 3
