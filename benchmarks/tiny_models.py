"""Build a tiny random model of any text model type of transformers."""

import re
from typing import Any

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

N_WORDS = 120
MOST_WEIGHTS = 30_000_000
#: Sizes by the settings' names; the first pattern that matches counts.
SIZES: dict[str, int] = {
    r"hidden_size_per_layer_input|laurel_rank|\w*lora_rank": 8,
    r"vocab_size\w*|\w*vocab_size": N_WORDS,
    r"hidden_size|d_model|n_embd|dim|\w*embed_dim|embedding_size|\w+_hidden_size": 32,
    r"\w*intermediate_size|\w*ffn_\w*size|\w*ffn_dim|d_ff|hidden_dim": 48,
    r"(num_)?(en|de)coder_layers|num_decoder_layers": 3,
    r"num_hidden_layers|num_layers|n_layers?|\w+_num_layers": 4,
    r"num_key_value_heads|num_kv_heads|linear_num_key_heads": 2,
    r"\w*num_(attention_)?heads|n_heads?|\w+_attention_heads|linear_num_value_heads": 4,
    r"mamba_n_heads|mamba_num_heads|\w*state_size|mamba_d_\w+|\w*chunk_size": 8,
    r"qk_head_dim|index_head_dim": 16,
    r"\w*head_dim|d_kv|index_topk": 8,
    r"num_experts_per_tok|moe_topk|moe_k|index_n_heads|n_group": 2,
    r"\w*num_\w*experts|n_routed_experts": 4,
    r"topk_group|first_k_dense_replace|n_groups|n_shared_experts": 1,
    r"max_position_embeddings|n_positions|n_ctx": 256,
    r"sliding_window": 16,
    r"rotary_dim": 4,
    r"num_kv_shared_layers": 0,
    r"image_size": 28,
    r"patch_size": 14,
}
MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
_INKLING = {
    "swa_head_dim": 8,
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 2,
    "conv_kernel_size": 4,
    "d_rel": 8,
    "rel_extent": 16,
}
_MLA = {"qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "head_dim": 8, "qk_head_dim": 16}
_XLM = {"emb_dim": 32}
#: Settings that the names of their families' settings don't tell.
SPECIAL: dict[str, dict[str, Any]] = {
    "bailing_hybrid": {
        **_MLA,
        "layer_types": ["linear_attention", "full_attention"] * 2,
        "mlp_layer_types": ["dense"] + ["sparse"] * 3,
        "num_expert_group": 2,
        "num_experts_per_token": 2,
        "num_nextn_predict_layers": 0,
        "linear_num_heads": 4,
    },
    "bamba": {"attn_layer_indices": [1, 3]},
    "cohere_compass_text": {
        "num_key_value_heads": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 1e4}
            for kind in ("sliding_attention", "full_attention")
        },
    },
    "cosmos3_edge_text": {"rope_parameters": MROPE},
    "deepseek_v2": {**_MLA, "num_experts_per_tok": 2, "first_k_dense_replace": 1},
    "dory": {
        "num_hidden_layers": 4,
        "n_input_layers": 1,
        "n_recurrent_layers": 2,
        "n_output_layers": 1,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "dots1": {
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "first_k_dense_replace": 1,
    },
    "esm": {"vocab_size": N_WORDS, "mask_token_id": 4},
    "esmc": {"num_key_value_heads": 4},
    "falcon_h1": {"mamba_d_ssm": 64},
    "flaubert": _XLM,
    "funnel": {"block_sizes": [2, 1], "block_repeats": [1, 1], "d_head": 8},
    "glm4v_moe_text": {"rope_parameters": {**MROPE, "partial_rotary_factor": 1.0}},
    "glm4v_text": {"rope_parameters": MROPE},
    "glm5_next_text": {"index_kpool": 4, "linear_num_heads": 4},
    "glm_image_text": {"rope_parameters": MROPE},
    "glm_ocr_text": {"rope_parameters": MROPE},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "window_size": 16},
    "hunyuan_vl_text": {"rope_parameters": MROPE},
    "hy_v4_vl_text": {"rope_parameters": MROPE},
    "inkling2_loop_text": {
        **_INKLING,
        "loop_layer_index_start": 1,
        "loop_layer_index_end": 3,
        "loop_num_passes": 2,
        "loop_gate_rank": 8,
        "n_layers_per_attn_res_block": 1,
    },
    "inkling2_text": {**_INKLING, "n_layers_per_attn_res_block": 2},
    "inkling_text": _INKLING,
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {
        "layer_types": ["linear_attention", "full_attention"] * 2,
        "mlp_layer_types": ["dense"] + ["sparse"] * 3,
        "num_experts_per_token": 2,
        "linear_num_heads": 4,
    },
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "layoutlmv3": {
        "hidden_size": 48,
        "coordinate_size": 8,
        "shape_size": 8,
        "input_size": 28,
    },
    "lilt": {"hidden_size": 48},
    "mamba2": {"num_heads": 8, "head_dim": 8, "expand": 2},
    "mistral4": {**_MLA, "head_dim": 16},
    "mllama_text_model": {"cross_attention_layers": [1]},
    "mobilebert": {
        "embedding_size": 16,
        "intra_bottleneck_size": 16,
        "true_hidden_size": 16,
    },
    "nemotron": {"num_key_value_heads": 2},
    "nemotron_h": {"layers_block_type": ["mamba", "moe", "attention", "mlp"]},
    "qwen4_exp_text": {
        "indexer_n_heads": 4,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 64,
        "indexer_compress_ratio": 1,
        "hc_lowrank": 8,
    },
    "reformer": {
        "axial_pos_embds": False,
        "attention_head_size": 8,
        "feed_forward_size": 48,
        "attn_layers": ["local", "local"],
        "local_attn_chunk_length": 8,
    },
    "xlm": _XLM,
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
    },
    "zamba2": {
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "mamba_headdim": 16,
        "n_mamba_heads": 4,
        "num_mem_blocks": 1,
    },
    "zaya": {"num_experts_per_tok": 1},
}


def build_config(model_type: str) -> PreTrainedConfig:
    """Build a tiny configuration of a model type."""
    config_class = CONFIG_MAPPING[model_type]
    settings = shrink_settings(config_class)
    for _ in range(3):
        try:
            return config_class(**settings)
        except AttributeError as error:
            # Kinds of layers that a family derives from other settings.
            if "no setter" not in str(error):
                raise
            for name in ("layer_types", "layers_block_type"):
                settings.pop(name, None)
    return config_class(**settings)


def shrink_settings(config_class: type[PreTrainedConfig]) -> dict[str, Any]:
    """Give tiny values to all settings whose names are known."""
    default = config_class()
    settings: dict[str, Any] = {}
    for name, value in default.to_dict().items():
        inner = vars(default).get(name)
        if isinstance(inner, PreTrainedConfig):
            settings[name] = shrink_settings(type(inner))
        elif name.endswith("token_id") and isinstance(value, int):
            settings[name] = value if 0 <= value < N_WORDS else N_WORDS - 1
        elif name in ("layer_types", "layers_block_type") and value:
            kinds = list(dict.fromkeys(value))
            settings[name] = (kinds + list(value))[:4]
        elif name == "head_dim" and value is None:
            settings[name] = 8
        elif isinstance(value, int) and not isinstance(value, bool) and value:
            size = next((n for p, n in SIZES.items() if re.fullmatch(p, name)), None)
            settings |= {} if size is None else {name: size}
    if "kv_lora_rank" in settings and "num_key_value_heads" in settings:
        settings["num_key_value_heads"] = 4
    settings["pad_token_id"] = 0
    if default.is_encoder_decoder:
        settings.setdefault("decoder_start_token_id", 0)
    settings |= SPECIAL.get(config_class.model_type, {})
    # A setting of one layer only is as large as the tiny model's layers are not.
    settings.pop("per_layer_config", None)
    return settings


def build_model(model_type: str) -> PreTrainedModel:
    """Build a tiny model with noise on every weight, in evaluation mode."""
    config = build_config(model_type)
    with torch.device("meta"):
        shape = transformers.AutoModel.from_config(config)
    n_weights = sum(weight.numel() for weight in shape.parameters())
    if n_weights > MOST_WEIGHTS:
        raise ValueError(
            f"The tiny {model_type} must be small. Got {n_weights} weights."
        )
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(config, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            noise = 0.2 * torch.randn(weight.shape, generator=generator)
            # A learned scale begins as a constant. Dory divides its scales by theirs:
            # much noise would make attention so sharp that rounding decides.
            constant = weight.min() == weight.max() != 0
            weight += noise * weight.abs() if constant else noise
    for one in (model.config, model.config.get_text_config()):
        one.use_cache = False
    return model.eval()
