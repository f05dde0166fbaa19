"""What a configuration alone says of a model: layers, widths and limits."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig

from plug_sklearn.embedding.anatomy._families import Stack
from plug_sklearn.embedding.models._limits import find_limit

# Families that run other blocks than `num_hidden_layers` of their configuration, each
# once: how many calls of a block a text takes.
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


@dataclass(frozen=True)
class Geometry:
    """The shape of one stack of a model.

    Attributes
    ----------
    stack : "encoder", "decoder" or None
        The stack of an encoder-decoder model; None where there is only one.
    n_layers, hidden_size : int
        Calls of a block of the stack for one text, and units in the residual stream.
    max_tokens : int or None
        The longest prompt; None where positions have no limit.
    start_id : int or None
        The token that a decoder stack reads before the text.
    """

    stack: Stack | None
    n_layers: int
    hidden_size: int
    max_tokens: int | None
    start_id: int | None = None


def read_geometry(config: PreTrainedConfig, stack: str) -> Geometry:
    """Read a model's geometry from its configuration.

    Parameters
    ----------
    config : PreTrainedConfig
        The model's own.
    stack : {"auto", "encoder", "decoder"}
        Which stack of an encoder-decoder model; ``"auto"`` is its encoder.

    Returns
    -------
    Geometry
        Of the text stack, for models that see or hear as well.

    Raises
    ------
    ValueError
        If a stack is named and the model has only one, a decoder has no token to
        start with, or the configuration is none of a language model.
    """
    if config.is_encoder_decoder:
        chosen: Stack | None = "decoder" if stack == "decoder" else "encoder"
    elif stack == "auto":
        chosen = None
    else:
        raise ValueError(
            "The 'stack' parameter of HFEmbeddingTransformer must be 'auto' for "
            f"{config.model_type!r}, which is no encoder-decoder model. "
            f"Got {stack!r} instead."
        )
    text = _config_of_stack(config, chosen)
    for name in ("num_hidden_layers", "hidden_size"):
        if getattr(text, name, None) is None:
            raise ValueError(
                "The 'model_name' parameter of HFEmbeddingTransformer must name a "
                f"model whose configuration tells its {name}. Got one of type "
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
    max_tokens = find_limit(text, chosen)
    return Geometry(chosen, n_layers, text.hidden_size, max_tokens, start_id)


def _config_of_stack(config: PreTrainedConfig, stack: Stack | None) -> PreTrainedConfig:
    """Give the configuration of a stack, which some models have within their own."""
    own = getattr(config, stack or "", None)
    if not isinstance(own, PreTrainedConfig):
        own = config
    text: PreTrainedConfig = own.get_text_config()
    return text


def _find_start(*configs: PreTrainedConfig) -> int | None:
    """Find the token that a decoder begins with; many name their first token only."""
    for name in ("decoder_start_token_id", "bos_token_id"):
        for config in configs:
            token = getattr(config, name, None)
            if token is not None:
                return int(token)
    return None
