"""Tiny random models, one for each family and for each variant that matters."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

import torch
import transformers as hf
from transformers import AutoModel, PreTrainedModel

from plug_sklearn.embedding.anatomy import anatomy_of, find_blocks

Stack = Literal["encoder", "decoder"]

HIDDEN_SIZE = 32
VOCABULARY_SIZE = 99

_SIZES = {
    "hidden_size": HIDDEN_SIZE,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
_IDS = {"vocab_size": VOCABULARY_SIZE, "pad_token_id": 0, "eos_token_id": 2}
_GROUPED = _SIZES | {"num_key_value_heads": 2, "head_dim": 8}
_GPT = {"n_embd": HIDDEN_SIZE, "n_layer": 3, "n_head": 4, "n_positions": 64}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
_T5 = {
    "d_model": HIDDEN_SIZE,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}
_BART = {
    "d_model": HIDDEN_SIZE,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 40,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "max_position_embeddings": 64,
    "decoder_start_token_id": 2,
}
_DEEPSEEK = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
}
_LOCAL_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
_GRANITE_HYBRID = {
    **_SIZES,
    "num_key_value_heads": 2,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_d_state": 8,
    "shared_intermediate_size": 40,
    "residual_multiplier": 0.22,
}
_QWEN3_NEXT = {
    "num_hidden_layers": 4,
    "layer_types": ["linear_attention"] * 3 + ["full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "shared_expert_intermediate_size": 24,
}


_MLA = {key: _DEEPSEEK[key] for key in _DEEPSEEK if key.endswith(("rank", "head_dim"))}
_T5_GEMMA = {**_IDS, **_GROUPED, "sliding_window": 4}
_NEMOTRON_H = {
    **_GROUPED,
    "layers_block_type": ["mamba", "moe", "attention", "mlp"],
    "ssm_state_size": 8,
    "mamba_num_heads": 8,
    "mamba_head_dim": 8,
    "n_groups": 1,
    "chunk_size": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "moe_shared_expert_intermediate_size": 24,
}
_FALCON_H1 = {
    **_GROUPED,
    "mamba_d_ssm": 64,
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_d_state": 8,
    "mamba_chunk_size": 4,
}


@dataclass(frozen=True)
class Family:
    """A configuration of a tiny model, and the stack of it that is meant."""

    config: Callable[[], Any]
    stack: Stack | None = None


def _of(
    config_class: Callable[..., Any],
    *sizes: Mapping[str, Any],
    stack: Stack | None = None,
    **changes: object,
) -> Family:
    keywords: dict[str, Any] = dict(_IDS)
    for mapping in (*sizes, changes):
        keywords |= mapping
    return Family(partial(config_class, **keywords), stack)


def _gemma3_with_vision() -> hf.Gemma3Config:
    return hf.Gemma3Config(
        text_config={**_IDS, **_GROUPED, "sliding_window": 4},
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        },
        mm_tokens_per_image=4,
        image_token_index=98,
        boi_token_index=97,
        eoi_token_index=96,
    )


#: Pre-norm: ``rs[l] == rs[l-1] + attn[l] + mlp[l]``.
PRE_NORM: dict[str, Family] = {
    "bloom": _of(hf.BloomConfig, hidden_size=HIDDEN_SIZE, n_layer=3, n_head=4),
    "codegen": _of(hf.CodeGenConfig, _GPT, rotary_dim=4),
    "cohere": _of(hf.CohereConfig, _GROUPED),
    "cohere2": _of(hf.Cohere2Config, _GROUPED, sliding_window=4),
    "deepseek_v3": _of(hf.DeepseekV3Config, _SIZES, _DEEPSEEK),
    "falcon": _of(hf.FalconConfig, _SIZES),
    "falcon, alibi": _of(hf.FalconConfig, _SIZES, alibi=True, bias=True),
    "falcon, new": _of(
        hf.FalconConfig, _SIZES, new_decoder_architecture=True, num_kv_heads=2
    ),
    "falcon, new, one norm": _of(
        hf.FalconConfig,
        _SIZES,
        new_decoder_architecture=True,
        num_kv_heads=2,
        num_ln_in_parallel_attn=1,
    ),
    "falcon, sequential": _of(hf.FalconConfig, _SIZES, parallel_attn=False),
    "gemma": _of(hf.GemmaConfig, _GROUPED),
    "gemma2": _of(hf.Gemma2Config, _GROUPED, sliding_window=4),
    "gemma3, multimodal": Family(_gemma3_with_vision),
    "gemma3, text": _of(hf.Gemma3TextConfig, _GROUPED, sliding_window=4),
    "glm4": _of(hf.Glm4Config, _GROUPED),
    "gpt2": _of(hf.GPT2Config, _GPT),
    "gpt_bigcode": _of(hf.GPTBigCodeConfig, _GPT),
    "gpt_bigcode, many heads": _of(hf.GPTBigCodeConfig, _GPT, multi_query=False),
    "gpt_neo": _of(
        hf.GPTNeoConfig,
        hidden_size=HIDDEN_SIZE,
        num_layers=4,
        num_heads=4,
        attention_types=[[["global", "local"], 2]],
        window_size=4,
        max_position_embeddings=64,
    ),
    "gpt_neox": _of(hf.GPTNeoXConfig, _SIZES),
    "gpt_neox, sequential": _of(hf.GPTNeoXConfig, _SIZES, use_parallel_residual=False),
    "gpt_oss": _of(
        hf.GptOssConfig,
        _GROUPED,
        num_local_experts=4,
        num_experts_per_tok=2,
        sliding_window=4,
    ),
    "gptj": _of(hf.GPTJConfig, _GPT, rotary_dim=4),
    "granitemoe": _of(
        hf.GraniteMoeConfig,
        _GROUPED,
        num_local_experts=4,
        num_experts_per_tok=2,
        residual_multiplier=0.22,
    ),
    "granite": _of(hf.GraniteConfig, _GROUPED, residual_multiplier=0.22),
    "llama": _of(hf.LlamaConfig, _GROUPED),
    "llama4, text": _of(
        hf.Llama4TextConfig,
        _GROUPED,
        num_local_experts=4,
        interleave_moe_layer_step=2,
        intermediate_size_mlp=40,
    ),
    "mbart, decoder": _of(hf.MBartConfig, _BART, stack="decoder"),
    "mbart, encoder": _of(hf.MBartConfig, _BART, stack="encoder"),
    "mistral": _of(hf.MistralConfig, _GROUPED, sliding_window=4),
    "mixtral": _of(
        hf.MixtralConfig, _GROUPED, num_local_experts=4, num_experts_per_tok=2
    ),
    "modernbert": _of(
        hf.ModernBertConfig,
        _SIZES,
        cls_token_id=1,
        sep_token_id=2,
        bos_token_id=1,
    ),
    "mpt": _of(hf.MptConfig, d_model=HIDDEN_SIZE, n_layers=3, n_heads=4),
    "mt5, decoder": _of(hf.MT5Config, _T5, stack="decoder"),
    "mt5, encoder": _of(hf.MT5Config, _T5, stack="encoder"),
    "olmo": _of(hf.OlmoConfig, _SIZES),
    "olmo2": _of(hf.Olmo2Config, _SIZES),
    "olmo3": _of(hf.Olmo3Config, _SIZES, sliding_window=4),
    "opt": _of(hf.OPTConfig, _SIZES, ffn_dim=48),
    "opt, narrow words": _of(hf.OPTConfig, _SIZES, ffn_dim=48, word_embed_proj_dim=16),
    "pegasus, decoder": _of(hf.PegasusConfig, _BART, stack="decoder"),
    "pegasus, encoder": _of(hf.PegasusConfig, _BART, stack="encoder"),
    "phi": _of(hf.PhiConfig, _SIZES),
    "phi, grouped": _of(hf.PhiConfig, _SIZES, num_key_value_heads=2, qk_layernorm=True),
    "phi3": _of(hf.Phi3Config, _GROUPED),
    "phi3, partly rotary": _of(hf.Phi3Config, _GROUPED, partial_rotary_factor=0.5),
    "qwen2": _of(hf.Qwen2Config, _GROUPED),
    "qwen2_moe": _of(
        hf.Qwen2MoeConfig, _GROUPED, _EXPERTS, shared_expert_intermediate_size=24
    ),
    "qwen3": _of(hf.Qwen3Config, _GROUPED),
    "qwen3_moe": _of(hf.Qwen3MoeConfig, _GROUPED, _EXPERTS),
    "smollm3": _of(hf.SmolLM3Config, _GROUPED),
    "stablelm": _of(hf.StableLmConfig, _GROUPED),
    "stablelm, parallel": _of(
        hf.StableLmConfig, _GROUPED, use_parallel_residual=True, qk_layernorm=True
    ),
    "starcoder2": _of(hf.Starcoder2Config, _GROUPED),
    "t5, decoder": _of(hf.T5Config, _T5, stack="decoder"),
    "t5, encoder": _of(hf.T5Config, _T5, stack="encoder"),
    "t5, gated": _of(hf.T5Config, _T5, stack="decoder", feed_forward_proj="gated-gelu"),
}

#: A norm follows each addition.
POST_NORM: dict[str, Family] = {
    "albert": _of(hf.AlbertConfig, _SIZES, embedding_size=16),
    "albert, groups": _of(
        hf.AlbertConfig,
        _SIZES,
        embedding_size=16,
        num_hidden_layers=4,
        num_hidden_groups=2,
    ),
    "bart, decoder": _of(hf.BartConfig, _BART, stack="decoder"),
    "bart, encoder": _of(hf.BartConfig, _BART, stack="encoder"),
    "bert": _of(hf.BertConfig, _SIZES),
    "bloom, late residual": _of(
        hf.BloomConfig,
        hidden_size=HIDDEN_SIZE,
        n_layer=3,
        n_head=4,
        apply_residual_connection_post_layernorm=True,
    ),
    "camembert": _of(hf.CamembertConfig, _SIZES),
    "deberta": _of(
        hf.DebertaConfig, _SIZES, relative_attention=True, pos_att_type=["c2p", "p2c"]
    ),
    "deberta_v2": _of(
        hf.DebertaV2Config,
        _SIZES,
        relative_attention=True,
        position_buckets=8,
        pos_att_type=["p2c", "c2p"],
        norm_rel_ebd="layer_norm",
        share_att_key=True,
    ),
    "deberta_v2, convolution": _of(
        hf.DebertaV2Config, _SIZES, conv_kernel_size=3, conv_act="gelu"
    ),
    "distilbert": _of(
        hf.DistilBertConfig, dim=HIDDEN_SIZE, hidden_dim=48, n_layers=3, n_heads=4
    ),
    "electra": _of(hf.ElectraConfig, _SIZES, embedding_size=16),
    "ernie": _of(hf.ErnieConfig, _SIZES),
    "marian, decoder": _of(hf.MarianConfig, _BART, stack="decoder"),
    "marian, encoder": _of(hf.MarianConfig, _BART, stack="encoder"),
    "mpnet": _of(hf.MPNetConfig, _SIZES),
    "nomic_bert": _of(hf.NomicBertConfig, _SIZES, head_dim=8),
    "opt, post-norm": _of(
        hf.OPTConfig,
        _SIZES,
        ffn_dim=48,
        do_layer_norm_before=False,
        word_embed_proj_dim=16,
    ),
    "plbart, decoder": _of(hf.PLBartConfig, _BART, stack="decoder"),
    "plbart, encoder": _of(hf.PLBartConfig, _BART, stack="encoder"),
    "rembert": _of(hf.RemBertConfig, _SIZES, input_embedding_size=16),
    "roberta": _of(hf.RobertaConfig, _SIZES),
    "xlm_roberta": _of(hf.XLMRobertaConfig, _SIZES),
}


def _t5_gemma() -> hf.T5GemmaConfig:
    """Stacks of 5 and of 3 layers; a decoder that names its first token only."""
    return hf.T5GemmaConfig(
        encoder={**_T5_GEMMA, "num_hidden_layers": 5},
        decoder={**_T5_GEMMA, "num_hidden_layers": 3, "bos_token_id": 1},
        **_IDS,
    )


#: Some layers, or all, have no attention.
HYBRID: dict[str, Family] = {
    "granitemoehybrid": _of(hf.GraniteMoeHybridConfig, _GRANITE_HYBRID, _LOCAL_EXPERTS),
    "granitemoehybrid, dense": _of(
        hf.GraniteMoeHybridConfig, _GRANITE_HYBRID, num_local_experts=0
    ),
    "mamba": _of(
        hf.MambaConfig, hidden_size=HIDDEN_SIZE, num_hidden_layers=3, state_size=4
    ),
    "qwen3_5_moe, text": _of(hf.Qwen3_5MoeTextConfig, _GROUPED, _EXPERTS, _QWEN3_NEXT),
    "qwen3_5, text": _of(
        hf.Qwen3_5TextConfig,
        _GROUPED,
        {k: v for k, v in _QWEN3_NEXT.items() if "expert" not in k},
    ),
    "qwen3_next": _of(hf.Qwen3NextConfig, _GROUPED, _EXPERTS, _QWEN3_NEXT),
}

#: Families that the table does not know: what they add is found by running them.
FOUND: dict[str, Family] = {
    "falcon_h1": _of(hf.FalconH1Config, _FALCON_H1),
    "gemma4, text": _of(
        hf.Gemma4TextConfig,
        _GROUPED,
        global_head_dim=8,
        sliding_window=4,
        hidden_size_per_layer_input=8,
        vocab_size_per_layer_input=VOCABULARY_SIZE,
        num_kv_shared_layers=0,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
    ),
    "hrm_text": _of(
        hf.HrmTextConfig, _SIZES, head_dim=8, num_hidden_layers=2, prefix_lm=False
    ),
    "longcat_flash": _of(
        hf.LongcatFlashConfig,
        _SIZES,
        _MLA,
        head_dim=8,
        num_hidden_layers=6,
        num_key_value_heads=4,
        ffn_hidden_size=48,
        expert_ffn_hidden_size=24,
        n_routed_experts=4,
        zero_expert_num=2,
        moe_topk=2,
    ),
    "nemotron_h": _of(hf.NemotronHConfig, _NEMOTRON_H),
    "t5gemma, decoder": Family(_t5_gemma, "decoder"),
    "t5gemma, encoder": Family(_t5_gemma, "encoder"),
}

#: The residual stream has several channels.
CHANNELS: dict[str, Family] = {
    "gemma3n, text": _of(
        hf.Gemma3nTextConfig,
        _GROUPED,
        sliding_window=4,
        hidden_size_per_layer_input=8,
        vocab_size_per_layer_input=VOCABULARY_SIZE,
        num_kv_shared_layers=0,
        laurel_rank=4,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        activation_sparsity_pattern=[0.0] * 3,
    ),
    "hy_v4": _of(
        hf.HYV4Config,
        _SIZES,
        _DEEPSEEK,
        index_topk=64,
        index_n_heads=2,
        index_head_dim=16,
    ),
    "qwen4_exp": _of(
        hf.Qwen4ExpTextConfig,
        _GROUPED,
        _EXPERTS,
        _QWEN3_NEXT,
        layer_types=["linear_attention", "indexed_attention"] * 2,
        hc_count=2,
        hc_lowrank=8,
        indexer_n_heads=4,
        indexer_kv_heads=1,
        indexer_head_dim=8,
        indexer_budget=64,
        indexer_compress_ratio=1,
    ),
}

FAMILIES: dict[str, Family] = {
    **PRE_NORM,
    **POST_NORM,
    **HYBRID,
    **FOUND,
    **CHANNELS,
}

#: Configurations whose parts no hook can hear.
DEAF: dict[str, Family] = {
    "bloom, slow": _of(
        hf.BloomConfig,
        hidden_size=HIDDEN_SIZE,
        n_layer=3,
        n_head=4,
        pretraining_tp=2,
        slow_but_exact=True,
    ),
}


@cache
def build_model(name: str) -> tuple[PreTrainedModel, Stack | None]:
    """Build a family's tiny model, in evaluation mode, float32, once a session."""
    family = (FAMILIES | DEAF)[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModel.from_config(family.config())
    shake_weights(model)
    return model.eval(), family.stack


def shake_weights(model: torch.nn.Module) -> None:
    """Add noise to every weight: new norms and biases do nothing, and hide errors."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.2 * torch.randn(weight.shape, generator=generator)


def run_tokens(
    model: PreTrainedModel, n_texts: int = 2, n_tokens: int = 7, **options: object
) -> Any:  # noqa: ANN401 - each model has an output class of its own
    """Run a model on random tokens, without a gradient."""
    generator = torch.Generator().manual_seed(1)
    # The highest ids and the lowest are special to some families.
    ids = torch.randint(3, 95, (n_texts, n_tokens), generator=generator)
    options["attention_mask"] = torch.ones_like(ids)
    if model.config.is_encoder_decoder:
        options["decoder_input_ids"] = ids.flip(1)
    with torch.no_grad():
        return model(input_ids=ids, **options)


@cache
def count_block_calls(name: str) -> int:
    """Count the calls of blocks that a text takes."""
    model, stack = build_model(name)
    calls: list[int] = []
    handles = [
        block.module.register_forward_hook(lambda *_: calls.append(1))
        for block in find_blocks(model, anatomy_of(model, stack))
    ]
    run_tokens(model)
    for handle in handles:
        handle.remove()
    return len(calls)
