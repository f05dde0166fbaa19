"""Find, fetch and read the files of a PEFT adapter, and name the weights in them."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor
from transformers.utils.hub import cached_file

from plug_sklearn._packages import require_extra
from plug_sklearn.embedding.models._registered import find_registered
from plug_sklearn.embedding.models._sharing import LRUCache
from plug_sklearn.embedding.models._sources import (
    ADAPTER_CONFIG_NAME,
    ModelSource,
    explain_missing_files,
)

_SAFE_WEIGHTS = "adapter_model.safetensors"
_WEIGHT_NAMES = (_SAFE_WEIGHTS, "adapter_model.bin")

#: What PEFT puts before the name of each module.
_PREFIX = "base_model.model."

#: Towers beside a language model, which transformers 4.52 moved into "model".
_TOWERS = {r"^(?=(?:vision|visual|audio|multi_modal)\w*\.)": "model."}
#: How names have changed: first as they are, then those of wrappers of language models
#: before transformers 4.52, of a text model out of its wrapper, and of one into it.
RENAMINGS: tuple[Mapping[str, str], ...] = (
    {},
    {
        r"^language_model\.model\.": "model.language_model.",
        r"^language_model\.lm_head": "lm_head",
        **_TOWERS,
    },
    {r"^(?:model\.)?language_model\.(?:model\.)?": "model."},
    {r"^model\.(?=layers\.|embed_tokens\.)": "model.language_model.", **_TOWERS},
)

# Asking the hub takes a while, and its answer for a revision does not change.
_ON_HUB = LRUCache(size=64)


def find_adapter(source: ModelSource, adapter: str | None) -> ModelSource | None:
    """Find the adapter that a model is read with; None if it has none.

    ``adapter`` is a hub id or a local folder; None stands for the adapter in the
    model's own repository, if there is one.
    """
    if adapter is not None:
        return source.as_adapter(adapter)
    if find_registered(source.name) is not None:
        # Its adapter is applied already.
        return None
    if source.path.exists():
        own = (source.path / ADAPTER_CONFIG_NAME).is_file()
    else:
        own = _ON_HUB.get(source, lambda: _holds_adapter(source))
    return source.as_adapter(source.name) if own else None


def check_adapter(source: ModelSource, adapter: str) -> None:
    """Refuse a path that holds no adapter; an id on the hub is not looked up.

    Raises a FileNotFoundError if it is no folder, and a ValueError if the folder holds
    no adapter.
    """
    found = source.as_adapter(adapter)
    found.loading_arguments()
    with explain_missing_files(found):
        if found.path.is_dir() and not (found.path / ADAPTER_CONFIG_NAME).is_file():
            raise FileNotFoundError(ADAPTER_CONFIG_NAME)


def _holds_adapter(source: ModelSource) -> bool:
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


def read_adapter(adapter: ModelSource) -> tuple[Any, dict[str, Tensor]]:
    """Read the configuration (a ``PeftConfig``) and the weights of an adapter.

    Raises an OSError if it cannot be fetched from the hub. Raises a ValueError if files
    are missing, the weights are a pickle that the user has not trusted, or the adapter
    is of a kind that adds learned vectors to each text.
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
            f"type is {config.peft_type.value}, which puts learned vectors before each "
            "text."
        )
    config.inference_mode = True
    return config, _drop_copies(peft.load_peft_weights(folder, device="cpu"))


def _fetch(adapter: ModelSource) -> str:
    """Fetch the files of an adapter; gives their folder."""
    arguments = adapter.fetching_arguments()
    with explain_missing_files(adapter):
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


def require_safetensors(folder: str, name: str) -> None:
    """Refuse weights that are a pickle, also those of adapters that X-LoRA mixes in.

    ``name`` is what the user calls the adapter.
    """
    if not Path(folder, _SAFE_WEIGHTS).is_file():
        raise ValueError(
            "The 'adapter' parameter of HFEmbeddingTransformer must be a PEFT adapter "
            f"with safetensors weights. Got {name!r} instead, which has no "
            f"{_SAFE_WEIGHTS}. Load it with peft and save it again; or, if you trust "
            "its pickle, pass model_kwargs={'use_safetensors': None}."
        )
    for other in _list_mixed_adapters(Path(folder)):
        if other != folder and Path(other).is_dir():
            require_safetensors(other, other)


def _list_mixed_adapters(folder: Path) -> list[str]:
    """List the adapters that X-LoRA mixes, by its configuration."""
    try:
        found = json.loads((folder / ADAPTER_CONFIG_NAME).read_bytes())
    except (OSError, ValueError):
        # PEFT says what is wrong with it.
        return []
    mixed = found.get("adapters") if isinstance(found, dict) else None
    return [str(path) for path in mixed.values()] if isinstance(mixed, dict) else []


def rename_weight(key: str, renaming: Mapping[str, str]) -> str:
    """Rename a weight of an adapter as a release of transformers has renamed it."""
    prefix = _PREFIX if key.startswith(_PREFIX) else ""
    name = key.removeprefix(prefix)
    for pattern, replacement in renaming.items():
        name, n_changes = re.subn(pattern, replacement, name)
        if n_changes:
            break
    return prefix + name


def name_parameter(key: str) -> str:
    """Name the parameter that has as many rows as a weight of an adapter.

    Examples
    --------
    >>> name_parameter("base_model.model.score.modules_to_save.weight")
    'score.weight'
    >>> name_parameter("base_model.model.lm_head.lora_B.weight")
    'lm_head.weight'
    """
    name = re.sub(r"\.(modules_to_save|base_layer|lora_B)(?=\.)", "", key)
    return name.removeprefix(_PREFIX)
