"""The lengths of text at which a model computes otherwise, by its configuration."""

import re
from collections.abc import Iterator

import numpy as np
from transformers import PreTrainedConfig

#: Settings that say how many tokens back a layer looks.
_WINDOW = re.compile("sliding_window(_size)?|window_size|attention_(chunk_size|window)")
#: Settings that say how many tokens a layer chooses to look at, or in how large blocks.
_CHOICE = re.compile("index(er)?_(topk|budget|block_size|kpool)")


def find_window(config: PreTrainedConfig) -> float:
    """Find how many tokens back a model's attention reaches; infinity for all."""
    return min(_list_numbers(config, _WINDOW), default=np.inf)


def find_wall(config: PreTrainedConfig) -> float:
    """Find the length from which on a pass uses other rotary factors; else infinity."""
    walls: list[float] = []
    for kind in ("longrope", "dynamic"):
        walls.append(_find_rotary_limit(config, kind))
    return min(walls)


def find_choice(config: PreTrainedConfig) -> float:
    """Find the length beyond which the length of a row changes what a token sees.

    Some layers attend to the most relevant tokens of those in the row, and padding
    must not be among them. Some rotary factors follow the length of the row.

    Returns
    -------
    float
        Longer texts are read in batches of equal length; infinity if none are.
    """
    chosen = min(_list_numbers(config, _CHOICE), default=np.inf)
    return min(chosen, _find_rotary_limit(config, "dynamic"))


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
        return np.inf
    name = "original_max_position_embeddings"
    limits = [one.get(name) for one in kinds] + [getattr(text, name, None)]
    if kind == "dynamic":
        limits.append(getattr(text, "max_position_embeddings", None))
    return min((limit for limit in limits if limit), default=np.inf)
