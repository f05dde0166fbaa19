"""A tiny random model of any text model type of transformers."""

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
#: Settings that the names of their families' settings don't tell.
SPECIAL: dict[str, dict[str, Any]] = {
    "glm4v_text": {"rope_parameters": MROPE},
    "glm_ocr_text": {"rope_parameters": MROPE},
    "qwen2_5_vl_text": {"rope_parameters": MROPE},
    "qwen2_vl_text": {"rope_parameters": MROPE},
    "bamba": {"attn_layer_indices": [1, 3]},
    "dory": {"n_input_layers": 1, "n_recurrent_layers": 2, "n_output_layers": 1},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "window_size": 16},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"num_heads": 8, "head_dim": 8, "expand": 2},
    "mllama_text_model": {"cross_attention_layers": [1]},
    "nemotron_h": {"layers_block_type": ["mamba", "moe", "attention", "mlp"]},
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
    return settings | SPECIAL.get(config_class.model_type, {})


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
            weight += 0.2 * torch.randn(weight.shape, generator=generator)
    for one in (model.config, model.config.get_text_config()):
        one.use_cache = False
    return model.eval()
