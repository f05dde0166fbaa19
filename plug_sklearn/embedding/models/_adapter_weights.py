"""Whether the weights of a PEFT adapter are safetensors, and not a pickle."""

import json
from pathlib import Path

_SAFE = "adapter_model.safetensors"


def require_safetensors(folder: str, name: str) -> None:
    """Check that the weights of an adapter are safetensors.

    Parameters
    ----------
    folder : str
        Where its files are.
    name : str
        What the user calls it, for the message.

    Raises
    ------
    ValueError
        If its weights, or those of an adapter that it mixes in, are a pickle.
    """
    if not Path(folder, _SAFE).is_file():
        raise ValueError(
            "The 'adapter' parameter of HFEmbeddingTransformer must be a PEFT adapter "
            f"with safetensors weights. Got {name!r} instead, which has no {_SAFE}. "
            "Load it with peft and save it again; or, if you trust its pickle, pass "
            "model_kwargs={'use_safetensors': None}."
        )
    for other in _list_mixed_adapters(Path(folder)):
        if other != folder and Path(other).is_dir():
            require_safetensors(other, other)


def _list_mixed_adapters(folder: Path) -> list[str]:
    """List the adapters that X-LoRA mixes, by its configuration."""
    try:
        found = json.loads((folder / "adapter_config.json").read_bytes())
    except (OSError, ValueError):
        # PEFT says what is wrong with it.
        return []
    mixed = found.get("adapters") if isinstance(found, dict) else None
    return [str(path) for path in mixed.values()] if isinstance(mixed, dict) else []
