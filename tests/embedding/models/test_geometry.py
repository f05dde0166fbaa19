"""Prompts as long as the limit, and what the model itself does with them."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import transformers
import transformers as hf
from _families import (
    FAMILIES,
    HIDDEN_SIZE,
    build_model,
    count_block_calls,
)
from numpy.testing import assert_allclose
from transformers import PreTrainedConfig

from plug_sklearn import HFEmbeddingTransformer
from plug_sklearn.embedding.models import (
    LoadedModel,
    find_attention_window,
    find_index_limit,
    find_rotary_threshold,
    find_row_multiple,
    read_geometry,
)
from plug_sklearn.embedding.passes import ForwardPass, Request, pad_prompts
from plug_sklearn.embedding.prompts import TokenizedPrompts


@pytest.mark.parametrize("name", FAMILIES)
def test_configuration_tells_what_the_model_has(name: str) -> None:
    model, stack = build_model(name)
    geometry = read_geometry(model.config, stack or "auto")
    assert geometry.stack == stack
    assert geometry.hidden_size == HIDDEN_SIZE
    assert geometry.n_layers == count_block_calls(name)


def test_stacks_of_other_sizes_are_each_measured_by_their_own_configuration() -> None:
    shared = {"num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 99}
    config = transformers.T5GemmaConfig(
        encoder={**shared, "num_hidden_layers": 5, "hidden_size": 32},
        decoder={
            **shared,
            "num_hidden_layers": 3,
            "hidden_size": 48,
            "bos_token_id": 7,
        },
        vocab_size=99,
    )
    encoder = read_geometry(config, "encoder")
    assert (encoder.n_layers, encoder.hidden_size, encoder.start_id) == (5, 32, None)
    decoder = read_geometry(config, "decoder")
    assert (decoder.n_layers, decoder.hidden_size, decoder.start_id) == (3, 48, 7)


@pytest.mark.parametrize(
    ("config", "n_calls"),
    [
        (transformers.LongcatFlashConfig(num_layers=5), 5),
        (transformers.HrmTextConfig(num_hidden_layers=2, H_cycles=2, L_cycles=3), 16),
        (
            transformers.DoryConfig(
                num_hidden_layers=6,
                n_input_layers=2,
                n_recurrent_layers=3,
                n_output_layers=1,
                n_recurrent_loops=4,
            ),
            15,
        ),
    ],
    ids=lambda value: getattr(value, "model_type", value),
)
def test_layers_are_counted_by_their_calls(
    config: transformers.PreTrainedConfig, n_calls: int
) -> None:
    assert read_geometry(config, "auto").n_layers == n_calls


@pytest.mark.parametrize("name", ["roberta", "xlm_roberta", "mpnet", "camembert"])
def test_positions_numbered_after_padding_leave_fewer_tokens(name: str) -> None:
    model, _ = build_model(name)
    config = model.config
    geometry = read_geometry(config, "auto")
    padding = config.pad_token_id
    assert geometry.max_tokens == config.max_position_embeddings - padding - 1


def test_start_token_is_the_decoder_s_only() -> None:
    model, _ = build_model("bart, decoder")
    assert read_geometry(model.config, "decoder").start_id == 2
    assert read_geometry(model.config, "encoder").start_id is None


def test_each_block_of_a_layer_of_albert_is_a_layer() -> None:
    config = transformers.AlbertConfig(
        hidden_size=HIDDEN_SIZE,
        intermediate_size=48,
        num_attention_heads=4,
        num_hidden_layers=3,
        inner_group_num=2,
    )
    n_layers = read_geometry(config, "auto").n_layers
    assert n_layers == 6
    with torch.random.fork_rng(devices=[]):
        loaded = LoadedModel(transformers.AutoModel.from_config(config).eval())
    request = Request(tuple(range(n_layers)), ("rs", "attn", "mlp"), ("last",))
    prompts = TokenizedPrompts.join([np.array([5, 6])])
    states = ForwardPass(loaded, request).run(pad_prompts(prompts, [0], pad_id=0))
    assert states.shape == (1, 6, 3, HIDDEN_SIZE)


def test_auto_is_the_encoder_of_two_stacks() -> None:
    model, _ = build_model("t5, decoder")
    assert read_geometry(model.config, "auto").stack == "encoder"


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_a_stack_of_a_model_with_one_is_refused(stack: str) -> None:
    model, _ = build_model("llama")
    with pytest.raises(ValueError, match=f"'stack'.*must be 'auto'.*Got '{stack}'"):
        read_geometry(model.config, stack)


def test_configuration_without_layers_is_an_error() -> None:
    config = transformers.PreTrainedConfig()
    with pytest.raises(ValueError, match=r"'model_name'.* states its num_hidden_l"):
        read_geometry(config, "auto")


Save = Callable[..., str]
SIZES = {
    "vocab_size": 330,
    "hidden_size": 24,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
BERT = {**SIZES, "max_position_embeddings": 24, "pad_token_id": 1}
LLAMA = {**SIZES, "max_position_embeddings": 24, "pad_token_id": 0}
MPT = {
    "vocab_size": 330,
    "d_model": 16,
    "n_heads": 2,
    "n_layers": 2,
    "max_seq_len": 24,
}
SEQ2SEQ = {
    "vocab_size": 330,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "pad_token_id": 0,
    "decoder_start_token_id": 2,
}
LED = {**SEQ2SEQ, "max_encoder_position_embeddings": 30, "attention_window": 8}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 3.0}


def count_runs(config: PreTrainedConfig, at_most: int) -> int:
    """Count the tokens of the longest text that a model runs."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        model = hf.AutoModel.from_config(config).eval()
        for n in range(1, at_most + 1):
            ids = torch.full((1, n), 5)
            try:
                model(input_ids=ids)
            except (IndexError, RuntimeError, ValueError):
                return n - 1
    return at_most


@pytest.mark.parametrize(
    "config",
    [
        hf.RobertaConfig(**BERT),
        hf.EsmConfig(**BERT, position_embedding_type="absolute", mask_token_id=3),
        hf.LiltConfig(**BERT, channel_shrink_ratio=2),
        hf.MarkupLMConfig(**BERT),
        hf.LukeConfig(**BERT, entity_vocab_size=9, entity_emb_size=16),
        hf.LayoutLMv3Config(**BERT, coordinate_size=4, shape_size=4),
        hf.CLIPTextConfig(**SIZES, max_position_embeddings=24),
        hf.BertConfig(**BERT),
        hf.MptConfig(**MPT),
        hf.GPT2Config(vocab_size=330, n_embd=16, n_layer=2, n_head=2, n_positions=24),
        hf.OPTConfig(
            vocab_size=330,
            hidden_size=16,
            ffn_dim=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=24,
            word_embed_proj_dim=16,
        ),
    ],
    ids=lambda config: config.model_type,
)
def test_limit_is_the_longest_text_that_runs(config: PreTrainedConfig) -> None:
    limit = read_geometry(config, "auto").max_tokens
    assert limit in (22, 24)
    assert count_runs(config, 30) == limit


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        (hf.LlamaConfig(**LLAMA), 24),
        (hf.LlamaConfig(**LLAMA, rope_parameters=YARN), 96),
        (hf.LlamaConfig(**LLAMA, rope_parameters=DYNAMIC), 72),
        (hf.LlamaConfig(**LLAMA, rope_scaling={"type": "linear", "factor": 2.0}), 48),
        # The limit is that of after the scaling already.
        (
            hf.LlamaConfig(
                **LLAMA, rope_parameters={**YARN, "original_max_position_embeddings": 6}
            ),
            24,
        ),
        (
            hf.LlamaConfig(
                **LLAMA,
                rope_parameters={
                    "rope_type": "llama3",
                    "rope_theta": 1e4,
                    "factor": 2.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 8,
                },
            ),
            24,
        ),
        # Layers with a window are not scaled.
        (
            hf.Gemma3TextConfig(
                **LLAMA,
                rope_parameters={
                    "full_attention": {**DYNAMIC, "rope_type": "linear"},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                },
            ),
            24,
        ),
        (hf.T5Config(vocab_size=330), None),
        (hf.BloomConfig(seq_length=24), None),
        (hf.XLNetConfig(), None),
    ],
)
def test_rotary_scaling_extends_the_limit(
    config: PreTrainedConfig, limit: int | None
) -> None:
    assert read_geometry(config, "auto").max_tokens == limit


def test_stacks_have_limits_of_their_own() -> None:
    config = hf.LEDConfig(**LED, max_decoder_position_embeddings=20)
    # The encoder pads rows of 24 tokens and more to 32, more than it has positions.
    assert read_geometry(config, "encoder").max_tokens == 24
    assert read_geometry(config, "decoder").max_tokens == 20


def test_only_what_pads_inside_has_a_multiple() -> None:
    assert find_row_multiple(hf.LongformerConfig(attention_window=[4, 8]), None) == 8
    assert find_row_multiple(hf.LEDConfig(attention_window=8), "encoder") == 8
    assert find_row_multiple(hf.LEDConfig(attention_window=8), "decoder") == 1
    assert find_row_multiple(hf.BigBirdConfig(block_size=16), None) == 16
    config = hf.BigBirdConfig(block_size=16, attention_type="original_full")
    assert find_row_multiple(config, None) == 1
    assert find_row_multiple(hf.LlamaConfig(**LLAMA), None) == 1


TEXTS = ["a", "The city of Paris", "Gold has the symbol Au, and iron", "x" * 200]


def read_alone(
    folder: str, ids: list[int], stack: str | None, pooling: str
) -> np.ndarray:
    """The state after the first block of one prompt, from a model read anew."""
    model = hf.AutoModel.from_pretrained(folder).eval()
    ids_ = torch.tensor([ids])
    inputs = {"input_ids": ids_}
    if stack is not None:
        # A decoder reads its start token and then what the encoder reads.
        encoder_ids = ids_[:, 1:] if stack == "decoder" else ids_
        decoder_ids = ids_ if stack == "decoder" else ids_[:, :1]
        inputs = {"input_ids": encoder_ids, "decoder_input_ids": decoder_ids}
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
    name = "hidden_states" if stack is None else f"{stack}_hidden_states"
    states = output[name][1][0, : len(ids)]
    return (states[-1] if pooling == "last" else states.mean(dim=0)).numpy()


@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize(
    ("config", "stack"),
    [
        (hf.LongformerConfig(**BERT, attention_window=8), None),
        (hf.LEDConfig(**LED, max_decoder_position_embeddings=20), "encoder"),
        (hf.LEDConfig(**LED, max_decoder_position_embeddings=20), "decoder"),
        (
            hf.MptConfig(**MPT),
            None,
        ),
        (hf.RobertaConfig(**BERT), None),
        (hf.LlamaConfig(**LLAMA, rope_parameters=YARN), None),
        (hf.LlamaConfig(**LLAMA, rope_parameters=DYNAMIC), None),
        (hf.GPTNeoXConfig(**{**LLAMA, "pad_token_id": 330}), None),
        (hf.MptConfig(**MPT, pad_token_id=999), None),
    ],
    ids=lambda value: getattr(value, "model_type", str(value)),
)
@pytest.mark.filterwarnings("ignore:.*distinct texts are longer than:UserWarning")
def test_texts_up_to_the_limit_are_read_as_each_alone(
    save_model: Save,
    byte_tokenizer: Callable[..., object],
    config: PreTrainedConfig,
    stack: str | None,
    pooling: str,
) -> None:
    folder = save_model(config, byte_tokenizer())
    embedder = HFEmbeddingTransformer(
        folder, layers=0, pooling=pooling, stack=stack or "auto", device="cpu"
    ).fit(TEXTS)
    model = embedder._describe_model()
    prompts = model.read_prompts(TEXTS)
    limit = model.geometry.max_tokens
    assert prompts.lengths.max() == min(limit or 999, 200 + (stack == "decoder"))
    expected = [
        read_alone(folder, prompts.ids_of(n).tolist(), stack, pooling)
        for n in range(len(TEXTS))
    ]
    for texts, rows in ((TEXTS, [0, 1, 2, 3]), (TEXTS[::-1], [3, 2, 1, 0])):
        found = embedder.transform(texts)[:, 0, 0]
        assert_allclose(found, np.array(expected)[rows], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "window"), [("mistral", 4), ("gpt_neo", 4), ("llama", np.inf)]
)
def test_window_is_the_narrowest_layer_s(name: str, window: float) -> None:
    assert find_attention_window(build_model(name)[0].config) == window


def test_window_of_a_model_with_settings_for_each_layer_is_found() -> None:
    assert find_attention_window(build_model("gemma4, text")[0].config) == 4


def test_tokens_that_an_index_chooses_are_a_limit() -> None:
    assert find_index_limit(build_model("hy_v4")[0].config) == 64
    assert find_index_limit(build_model("llama")[0].config) == np.inf


def test_rotary_factors_that_follow_the_length_are_a_limit() -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    config = transformers.LlamaConfig(rope_parameters=rope, max_position_embeddings=64)
    assert find_index_limit(config) == 64
    assert find_rotary_threshold(config) == 64
