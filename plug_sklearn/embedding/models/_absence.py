"""What is said when a model's files are not here."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plug_sklearn.embedding.models._models import ModelSource


@contextmanager
def explain_absence(source: "ModelSource") -> Iterator[None]:
    """Say which files of the hub are missing, and how to get them.

    Raises
    ------
    OSError
        In place of those of the hub's client, which it has as its cause.
    ValueError
        If a local folder is one of an adapter and should be one of a model.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        if source.path.is_dir():
            _explain_adapter(source, error)
        if Path(source.name).exists() or isinstance(error, ValueError):
            raise
        wanted = source.commit or source.revision
        revision = f" --revision {wanted}" if wanted else ""
        thing = "language model" if source.parameter == "model_name" else "adapter"
        raise OSError(
            f"The {thing} {source.name!r} (revision "
            f"{source.revision or 'main'!r}, commit {source.commit or 'unknown'}) is "
            "needed, and neither is on this machine nor could be fetched from the hub. "
            f"With a connection, 'hf download {source.name}{revision}' gets it; a copy "
            f"in a folder is named by the {source.parameter!r} parameter of "
            "HFEmbeddingTransformer."
        ) from error


def _explain_adapter(source: "ModelSource", error: Exception) -> None:
    """Say what is wrong where the folders of a model and of an adapter are mixed up."""
    if source.parameter == "adapter":
        raise ValueError(
            "The 'adapter' parameter of HFEmbeddingTransformer must name a folder with "
            f"an adapter_config.json. Got {source.name!r} instead."
        ) from error
    config = source.path / "adapter_config.json"
    weights = ("model*.safetensors*", "pytorch_model*.bin*")
    held = any(any(source.path.glob(pattern)) for pattern in weights)
    if config.exists() and not held:
        base = json.loads(config.read_text()).get("base_model_name_or_path")
        raise ValueError(
            "The 'model_name' parameter of HFEmbeddingTransformer must name a model. "
            f"Got {source.name!r} instead, which holds an adapter and no model: give "
            f"it as 'adapter', and the model it was trained on, {base!r}, as "
            "'model_name'."
        ) from error
