"""Layers, widths and maximum lengths of a model, read from its configuration."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from transformers import PreTrainedConfig

from plug_sklearn.embedding.anatomy import Stack

# Families that run other blocks than `num_hidden_layers` of their configuration, each
# once: how many blocks one text runs through.
_CALLS: Mapping[str, Callable[[Any], int]] = {
    # A layer of ALBERT may be several blocks, each with attention and an MLP.
    "albert": lambda config: config.num_hidden_layers * config.inner_group_num,
    "dory": lambda config: (
        config.n_input_layers
        + config.n_recurrent_layers * config.n_recurrent_loops
        + config.n_output_layers
    ),
    "inkling2_loop_text": lambda config: (
        config.num_hidden_layers
        + (config.loop_layer_index_end - config.loop_layer_index_start)
        * (config.loop_num_passes - 1)
    ),
    # A block holds two attentions, which its configuration counts as layers.
    "longcat_flash": lambda config: config.num_layers,
    # Its layers of cross-attention run for images only.
    "mllama_text_model": lambda config: (
        config.num_hidden_layers - len(set(config.cross_attention_layers))
    ),
}

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
# These have no table of positions, whatever length their configuration mentions.
_WITHOUT_LIMIT = frozenset(
    {"bloom", "longt5", "mt5", "switch_transformers", "t5", "umt5"}
)

# What families call the longest prompt. The first that a configuration has counts.
_LIMITS = (
    "max_position_embeddings",
    "max_seq_len",
    "max_sequence_length",
    "max_seq_length",
    "seq_length",
    "n_positions",
)
_ENCODER_LIMITS = ("max_encoder_position_embeddings", *_LIMITS)
_DECODER_LIMITS = ("max_decoder_position_embeddings", "max_target_positions", *_LIMITS)

#: Settings that say how many tokens back a layer attends.
_WINDOW = re.compile("sliding_window(_size)?|window_size|attention_(chunk_size|window)")
#: Settings that say how many tokens an index selects for attention, or in what blocks.
_INDEX = re.compile("index(er)?_(topk|budget|block_size|kpool)")


@dataclass(frozen=True)
class Geometry:
    """The shape of a model, or of its encoder or decoder.

    ``stack`` is "encoder", "decoder", or None if the model is not an encoder-decoder.
    ``n_layers`` counts the blocks that one text runs through. ``max_tokens`` is the
    longest prompt; None where positions have no limit. ``start_id`` is the token that a
    decoder reads before the text.
    """

    stack: Stack | None
    n_layers: int
    hidden_size: int
    max_tokens: int | None
    start_id: int | None = None


def read_geometry(config: PreTrainedConfig, stack: str) -> Geometry:
    """Read the geometry of a language model from its configuration.

    ``stack`` is "encoder", "decoder" or "auto", which stands for the encoder of an
    encoder-decoder, and for the whole of any other model.

    Raises a ValueError if ``stack`` is named and the model is not an encoder-decoder, a
    decoder has no token to start with, or the configuration is not that of a language
    model.
    """
    if config.is_encoder_decoder:
        chosen: Stack | None = "decoder" if stack == "decoder" else "encoder"
    elif stack == "auto":
        chosen = None
    else:
        raise ValueError(
            "The 'stack' parameter of HFEmbeddingTransformer must be 'auto' for "
            f"{config.model_type!r}, which is not an encoder-decoder model. Got "
            f"{stack!r} instead."
        )
    # Some models have the configuration of their encoder or decoder within their own.
    own = getattr(config, chosen or "", None)
    text = (own if isinstance(own, PreTrainedConfig) else config).get_text_config()
    for name in ("num_hidden_layers", "hidden_size"):
        if getattr(text, name, None) is None:
            raise ValueError(
                "The 'model_name' parameter of HFEmbeddingTransformer must name a "
                f"model whose configuration states its {name}. Got one of type "
                f"{config.model_type!r} instead."
            )
    count = _CALLS.get(text.model_type)
    n_layers = text.num_hidden_layers if count is None else count(text)
    start_id = None
    if chosen == "decoder":
        for name in ("num_decoder_layers", "decoder_layers"):
            n_layers = getattr(text, name, n_layers)
        start_id = _find_start(text, config)
        if start_id is None:
            raise ValueError(
                "The 'stack' parameter of HFEmbeddingTransformer must be 'encoder' for "
                f"{config.model_type!r} without a decoder_start_token_id or a "
                "bos_token_id in its configuration. Got 'decoder' instead."
            )
    return Geometry(
        chosen, n_layers, text.hidden_size, find_limit(text, chosen), start_id
    )


def _find_start(*configs: PreTrainedConfig) -> int | None:
    """Find the token that a decoder begins with; many name their first token only."""
    for name in ("decoder_start_token_id", "bos_token_id"):
        for config in configs:
            token = getattr(config, name, None)
            if token is not None:
                return int(token)
    return None


def find_limit(config: PreTrainedConfig, stack: Stack | None) -> int | None:
    """Find how many tokens a prompt may have; None where positions have no limit.

    The encoder of an encoder-decoder reads the text in any case, so that its limit
    holds for the decoder too.
    """
    text = config.get_text_config()
    if text.model_type in _WITHOUT_LIMIT:
        return None
    limit = _read_limit(text, _LIMITS if stack is None else _ENCODER_LIMITS)
    multiple = find_row_multiple(config, stack and "encoder")
    if text.model_type in _NUMBERED_AFTER_PADDING:
        limit -= text.pad_token_id + 1
    else:
        # Rows of padding have positions too.
        limit -= limit % multiple if limit < inf else 0
    if stack == "decoder":
        limit = min(limit, _read_limit(text, _DECODER_LIMITS))
    if limit == inf:
        return None
    return min(_extend(int(limit), rope) for rope in _list_rope_parameters(config))


def _read_limit(text: PreTrainedConfig, names: tuple[str, ...]) -> float:
    for name in names:
        limit = getattr(text, name, None)
        if isinstance(limit, int):
            # XLNet says -1 where there is none.
            return limit if limit > 0 else inf
    return inf


def _list_rope_parameters(config: PreTrainedConfig) -> list[dict[str, Any]]:
    """List the rotary parameters of each kind of layer; one empty dict for none."""
    text = config.get_text_config()
    names = ("rope_parameters", "rope_scaling")
    found = [getattr(text, name, None) for name in names]
    rope: dict[str, Any] = next((r for r in found if isinstance(r, dict)), {})
    kinds = [kind for kind in rope.values() if isinstance(kind, dict)]
    return [
        {"rope_type": kind.get("type"), **kind} for kind in (kinds if kinds else [rope])
    ]


def _extend(limit: int, rope: dict[str, Any]) -> int:
    """Extend a limit as rotary scaling does, where it is that of before the scaling."""
    factor = rope.get("factor")
    if not isinstance(factor, int | float) or rope["rope_type"] == "proportional":
        return limit
    original = rope.get("original_max_position_embeddings") or limit
    return max(limit, int(original * factor))


def find_row_multiple(config: PreTrainedConfig, stack: Stack | None) -> int:
    """Find the number of tokens that a model pads its rows to a multiple of; else 1.

    Models that attend within windows or blocks of tokens do. They leave rows as they
    are that were padded before.
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


def find_attention_window(config: PreTrainedConfig) -> float:
    """Find how many tokens back a model's attention reaches; infinity for all."""
    return min(_list_numbers(config, _WINDOW), default=inf)


def find_rotary_threshold(config: PreTrainedConfig) -> float:
    """Find the length above which a pass uses other rotary factors; else infinity."""
    return min(_find_rotary_limit(config, kind) for kind in ("longrope", "dynamic"))


def find_index_limit(config: PreTrainedConfig) -> float:
    """Find the length above which the length of a row matters; infinity for none.

    Some layers attend only to the tokens of the row that an index selects, among which
    padding must not be. Some rotary factors follow the length of the row. Longer
    prompts are read in batches of equal length.
    """
    indexed = min(_list_numbers(config, _INDEX), default=inf)
    return min(indexed, _find_rotary_limit(config, "dynamic"))


def _list_numbers(config: PreTrainedConfig, names: re.Pattern[str]) -> Iterator[int]:
    text = config.get_text_config()
    # Settings of each layer by itself are no attributes of the whole.
    for one in (text, *getattr(text, "per_layer_config", ())):
        for name, value in vars(one).items():
            if names.fullmatch(name):
                values = value if isinstance(value, list | tuple) else [value]
                yield from (n for n in values if isinstance(n, int) and n > 0)


def _find_rotary_limit(config: PreTrainedConfig, kind: str) -> float:
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or {}
    # Some families have rotary parameters for each kind of layer.
    kinds = [rope, *(one for one in rope.values() if isinstance(one, dict))]
    if not any(one.get("rope_type") == kind for one in kinds):
        return inf
    name = "original_max_position_embeddings"
    limits = [one.get(name) for one in kinds] + [getattr(text, name, None)]
    if kind == "dynamic":
        limits.append(getattr(text, "max_position_embeddings", None))
    return min((limit for limit in limits if limit), default=inf)
