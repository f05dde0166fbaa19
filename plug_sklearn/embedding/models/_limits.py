"""How long a prompt may be, from a model's configuration alone."""

from math import inf
from typing import Any

from transformers import PreTrainedConfig

from plug_sklearn.embedding.anatomy._families import Stack

# Families that number positions from the padding token's id + 1 on, which takes that
# many places from their table of positions.
_NUMBERED_AFTER_PADDING = frozenset(
    {
        "altclip_text_model",
        "bridgetower_text_model",
        "camembert",
        "clap_text_model",
        "data2vec-text",
        "esm",
        "ibert",
        "layoutlmv3",
        "lilt",
        "longformer",
        "luke",
        "markuplm",
        "mpnet",
        "prophetnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)

# What families call the longest prompt. The first that a configuration has counts.
_NAMES = (
    "max_position_embeddings",
    "max_seq_len",
    "max_sequence_length",
    "max_seq_length",
    "seq_length",
    "n_positions",
)
_ENCODER_NAMES = ("max_encoder_position_embeddings", *_NAMES)
_DECODER_NAMES = ("max_decoder_position_embeddings", "max_target_positions", *_NAMES)

# These have no table of positions, whatever length their configuration mentions.
_WITHOUT_LIMIT = frozenset(
    {"bloom", "longt5", "mt5", "switch_transformers", "t5", "umt5"}
)


def find_limit(config: PreTrainedConfig, stack: Stack | None) -> int | None:
    """Find the longest prompt that a stack of a model takes.

    Parameters
    ----------
    config : PreTrainedConfig
        The model's own.
    stack : "encoder", "decoder" or None
        The stack of an encoder-decoder model. Its encoder reads the text in any case.

    Returns
    -------
    int or None
        Tokens; None where positions have no limit.
    """
    text = config.get_text_config()
    if text.model_type in _WITHOUT_LIMIT:
        return None
    limit = _read_limit(text, _NAMES if stack is None else _ENCODER_NAMES)
    multiple = find_row_multiple(config, stack and "encoder")
    if text.model_type in _NUMBERED_AFTER_PADDING:
        limit -= text.pad_token_id + 1
    else:
        # Rows of padding have positions too.
        limit -= limit % multiple if limit < inf else 0
    if stack == "decoder":
        limit = min(limit, _read_limit(text, _DECODER_NAMES))
    if limit == inf:
        return None
    return min(_extend(int(limit), kind) for kind in list_rope_parameters(config))


def find_row_multiple(config: PreTrainedConfig, stack: Stack | None) -> int:
    """Find the number of tokens that a model pads its rows to a multiple of; else 1.

    Those that attend within windows or blocks of tokens do: a row that is padded
    before it comes to the model stays as it is.
    """
    text = config.get_text_config()
    window = getattr(text, "attention_window", None)
    if stack == "decoder":
        return 1
    if isinstance(window, list | tuple):
        return int(max(window))
    if getattr(text, "attention_type", None) == "block_sparse":
        return int(text.block_size)
    return window if isinstance(window, int) else 1


def list_rope_parameters(config: PreTrainedConfig) -> list[dict[str, Any]]:
    """List the rotary parameters of each kind of layer; one empty dict for none."""
    text = config.get_text_config()
    names = ("rope_parameters", "rope_scaling")
    found = [getattr(text, name, None) for name in names]
    rope: dict[str, Any] = next((r for r in found if isinstance(r, dict)), {})
    kinds = [kind for kind in rope.values() if isinstance(kind, dict)]
    return [
        {"rope_type": kind.get("type"), **kind} for kind in (kinds if kinds else [rope])
    ]


def find_dynamic_start(config: PreTrainedConfig) -> float:
    """Find the length from which on rotary factors depend on it; infinity for none."""
    kinds = list_rope_parameters(config)
    if not any("dynamic" in str(kind["rope_type"]) for kind in kinds):
        return inf
    return float(config.get_text_config().max_position_embeddings)


def _read_limit(text: PreTrainedConfig, names: tuple[str, ...]) -> float:
    for name in names:
        limit = getattr(text, name, None)
        if isinstance(limit, int):
            # XLNet says -1 where there is none.
            return limit if limit > 0 else inf
    return inf


def _extend(limit: int, rope: dict[str, Any]) -> int:
    """Extend a limit as rotary scaling does, where it is that of before the scaling."""
    factor = rope.get("factor")
    if not isinstance(factor, int | float) or rope["rope_type"] == "proportional":
        return limit
    original = rope.get("original_max_position_embeddings") or limit
    return max(limit, int(original * factor))
