"""Whether the weights of a PEFT adapter are safetensors, and not a pickle."""

import json
from pathlib import Path

_SAFE, _PICKLE = "adapter_model.safetensors", "adapter_model.bin"


def require_safetensors(adapter: str) -> None:
    """Make sure that PEFT will read an adapter from safetensors.

    Parameters
    ----------
    adapter : str
        Local folder or hub id.

    Raises
    ------
    ValueError
        If its weights are a pickle.
    OSError
        If the hub's repository cannot be read.
    """
    if Path(adapter).is_dir():
        require_safetensors_here(adapter)
        return
    # Loading an artifact needs neither of these, and both take long to import.
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    from transformers.utils.hub import cached_file

    try:
        cached_file(adapter, _SAFE)
    except OSError as error:
        cause = error.__cause__
        is_missing = isinstance(cause, EntryNotFoundError)
        is_missing = is_missing and not isinstance(cause, LocalEntryNotFoundError)
        # Offline, PEFT takes the pickle if it finds one in the cache.
        if is_missing or isinstance(try_to_load_from_cache(adapter, _PICKLE), str):
            raise _make_refusal(adapter) from error
        raise


def require_safetensors_here(adapter: str) -> None:
    """Make sure that a local adapter holds safetensors; never contacts the hub.

    Parameters
    ----------
    adapter : str
        Local folder or hub id.

    Raises
    ------
    ValueError
        If its weights, or those of an adapter that it mixes in, are a pickle.
    """
    folder = Path(adapter)
    if not folder.is_dir():
        return
    if not (folder / _SAFE).is_file():
        raise _make_refusal(adapter)
    for other in _list_mixed_adapters(folder):
        if other != adapter:
            require_safetensors_here(other)


def _list_mixed_adapters(folder: Path) -> list[str]:
    """List the adapters that X-LoRA mixes, by its configuration."""
    try:
        found = json.loads((folder / "adapter_config.json").read_bytes())
    except (OSError, ValueError):
        # PEFT says what is wrong with it.
        return []
    mixed = found.get("adapters") if isinstance(found, dict) else None
    return [str(path) for path in mixed.values()] if isinstance(mixed, dict) else []


def _make_refusal(adapter: str) -> ValueError:
    return ValueError(
        "The 'adapter' parameter of HFEmbeddingTransformer must be a PEFT adapter with "
        f"safetensors weights. Got {adapter!r} instead, which has no {_SAFE}. Load it "
        "with peft and save it again; or, if you trust its pickle, pass "
        "model_kwargs={'use_safetensors': None}."
    )
