"""The files of a PEFT adapter: found, fetched and read."""

import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from torch import Tensor
from transformers.utils.hub import cached_file

from plug_sklearn._extras import require_extra
from plug_sklearn.embedding.models._absence import explain_absence
from plug_sklearn.embedding.models._adapter_weights import require_safetensors
from plug_sklearn.embedding.models._shelf import Shelf

if TYPE_CHECKING:
    from plug_sklearn.embedding.models._models import ModelSource

ADAPTER_CONFIG_NAME = "adapter_config.json"
_WEIGHT_NAMES = ("adapter_model.safetensors", "adapter_model.bin")

# Asking the hub takes a while, and it has no other answer for the same revision.
_ON_HUB = Shelf(size=64)


def find_adapter(source: "ModelSource", adapter: str | None) -> "ModelSource | None":
    """Find the adapter that a model is read with.

    Parameters
    ----------
    source : ModelSource
        The model.
    adapter : str or None
        Hub id or local folder of an adapter; None is the one in the model's own
        repository, if there is one.

    Returns
    -------
    ModelSource or None
        Where the adapter comes from; None if the model has none.
    """
    if adapter is not None:
        return source.as_adapter(adapter)
    if source.path.exists():
        own = (source.path / ADAPTER_CONFIG_NAME).is_file()
    else:
        own = _ON_HUB.take(source, lambda: _holds_adapter(source))
    return source.as_adapter(source.name) if own else None


def _holds_adapter(source: "ModelSource") -> bool:
    found = cached_file(
        source.name,
        ADAPTER_CONFIG_NAME,
        **source.fetching_arguments(),
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return found is not None


def import_peft() -> ModuleType:
    """Import peft, or say how to install it."""
    require_extra(
        "adapters",
        "An adapter, whether the 'adapter' parameter of HFEmbeddingTransformer names "
        f"it or a model comes with an {ADAPTER_CONFIG_NAME},",
    )
    import peft

    module: ModuleType = peft
    return module


def read_adapter(adapter: "ModelSource") -> tuple[Any, dict[str, Tensor]]:
    """Read the configuration and the weights of an adapter.

    Parameters
    ----------
    adapter : ModelSource
        Where it comes from.

    Returns
    -------
    config : peft.PeftConfig
        Its configuration.
    weights : dict of str to Tensor
        Its weights, by the names that they are stored under.

    Raises
    ------
    OSError
        If it cannot be fetched from the hub.
    ValueError
        If files are missing, the weights are a pickle that the user has not trusted,
        or the adapter puts vectors before each text.
    """
    peft = import_peft()
    folder = _fetch(adapter)
    # As for the model's own weights: a user may ask for pickles in model_kwargs.
    if adapter.model_kwargs.get("use_safetensors", True):
        require_safetensors(folder, adapter.name)
    config = peft.PeftConfig.from_pretrained(folder)
    if config.is_prompt_learning or config.is_adaption_prompt:
        raise ValueError(
            "The 'adapter' parameter of HFEmbeddingTransformer must name an adapter "
            f"that changes weights, such as LoRA. Got {adapter.name!r} instead, whose "
            f"type is {config.peft_type.value}: it puts learned vectors before each "
            "text."
        )
    config.inference_mode = True
    return config, _drop_copies(peft.load_peft_weights(folder, device="cpu"))


def _fetch(adapter: "ModelSource") -> str:
    """Fetch the files of an adapter; gives their folder."""
    arguments = adapter.fetching_arguments()
    with explain_absence(adapter):
        path = cached_file(adapter.name, ADAPTER_CONFIG_NAME, **arguments)
        for name in _WEIGHT_NAMES:
            if cached_file(
                adapter.name,
                name,
                **arguments,
                _raise_exceptions_for_missing_entries=False,
            ):
                return str(Path(str(path)).parent)
    raise ValueError(
        "The 'adapter' parameter of HFEmbeddingTransformer must name a repository with "
        f"an {_WEIGHT_NAMES[0]}. Got {adapter.name!r} instead, which has none."
    )


def _drop_copies(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop second copies, and what was before, of weights that were trained whole."""
    copy = re.compile(r"\.(modules_to_save|original_module)(?=\.)")
    return {
        key: tensor
        for key, tensor in stored.items()
        if not copy.search(key) or copy.sub("", key) not in stored
    }
