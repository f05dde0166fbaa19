import numpy as np
import pytest
import torch
import transformers
from _families import FAMILIES, HIDDEN_SIZE, build_model, run_tokens

from plug_sklearn.embedding.anatomy._anatomy import anatomy_of, find_blocks
from plug_sklearn.embedding.models._geometry import read_geometry
from plug_sklearn.embedding.models._models import LoadedModel
from plug_sklearn.embedding.passes._batches import pad_prompts
from plug_sklearn.embedding.passes._capture import Request
from plug_sklearn.embedding.passes._forward import ForwardPass
from plug_sklearn.embedding.prompts._tokenized import TokenizedPrompts


@pytest.mark.parametrize("name", FAMILIES)
def test_configuration_tells_what_the_model_has(name: str) -> None:
    model, stack = build_model(name)
    geometry = read_geometry(model.config, stack or "auto")
    assert geometry.stack == stack
    assert geometry.hidden_size == HIDDEN_SIZE
    calls: list[int] = []
    handles = [
        block.module.register_forward_hook(lambda *_: calls.append(1))
        for block in find_blocks(model, anatomy_of(model, stack))
    ]
    run_tokens(model)
    for handle in handles:
        handle.remove()
    assert geometry.n_layers == len(calls)


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
    with pytest.raises(ValueError, match=r"'model_name'.* tells its num_hidden_l"):
        read_geometry(config, "auto")
