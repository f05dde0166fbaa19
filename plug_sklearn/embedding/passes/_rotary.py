"""Rotary factors that a model changes with the length of what it reads."""

from torch import nn
from transformers import PreTrainedModel


def list_dynamic_modules(model: PreTrainedModel) -> list[nn.Module]:
    """List the modules whose rotary factors grow with the longest text so far."""
    return [
        module
        for module in model.modules()
        if "dynamic" in str(getattr(module, "rope_type", ""))
        and hasattr(module, "original_max_seq_len")
    ]


def reset_rotary_factors(module: nn.Module) -> None:
    """Make a module with dynamic scaling forget how long its longest text was.

    It keeps the factors of that text for shorter ones, down to the length that the
    model was trained on: their states would depend on what was read before.
    """
    held = {**vars(module), **dict(module.named_buffers(recurse=False))}
    for name, value in held.items():
        if name.endswith("max_seq_len_cached"):
            setattr(module, name, module.original_max_seq_len)
        elif name.endswith("original_inv_freq"):
            current = name.replace("original_inv_freq", "inv_freq")
            factors = value.to(held[current].device)
            module.register_buffer(current, factors, persistent=False)
