import numpy as np
import pytest
import torch
import transformers
from _families import FAMILIES, HIDDEN_SIZE, build_model

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
    # One block of ALBERT serves several layers.
    if "albert" not in name:
        assert geometry.n_layers == len(find_blocks(model, anatomy_of(model, stack)))


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
    request = Request(tuple(range(n_layers)), ("rs", "attn", "mlp"), "last")
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
