"""What a configuration alone says of a model: layers, widths and limits."""

from dataclasses import dataclass

from transformers import PreTrainedConfig

from plug_sklearn.embedding.anatomy._families import Stack
from plug_sklearn.embedding.models._limits import find_limit


@dataclass(frozen=True)
class Geometry:
    """The shape of one stack of a model.

    Attributes
    ----------
    stack : "encoder", "decoder" or None
        The stack of an encoder-decoder model; None where there is only one.
    n_layers, hidden_size : int
        Blocks in the stack, and units in the residual stream.
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
        If a stack is named and the model has only one, or a decoder has no token to
        start with.
    """
    text = config.get_text_config()
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
    # A layer of ALBERT may be several blocks, each with attention and an MLP.
    n_layers = text.num_hidden_layers * getattr(text, "inner_group_num", 1)
    start_id = None
    if chosen == "decoder":
        for name in ("num_decoder_layers", "decoder_layers"):
            n_layers = getattr(text, name, n_layers)
        start_id = getattr(text, "decoder_start_token_id", None)
        if start_id is None:
            raise ValueError(
                "The 'stack' parameter of HFEmbeddingTransformer must be 'encoder' for "
                f"{config.model_type!r} without a decoder_start_token_id in its "
                "configuration. Got 'decoder' instead."
            )
    max_tokens = find_limit(config, chosen)
    return Geometry(chosen, n_layers, text.hidden_size, max_tokens, start_id)
