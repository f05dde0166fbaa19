"""What is said when a model's files are not here."""

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
    """
    try:
        yield
    except OSError as error:
        if Path(source.name).exists():
            raise
        wanted = source.commit or source.revision
        revision = f" --revision {wanted}" if wanted else ""
        raise OSError(
            f"The language model {source.name!r} (revision "
            f"{source.revision or 'main'!r}, commit {source.commit or 'unknown'}) is "
            "needed, and neither is on this machine nor could be fetched from the hub. "
            f"With a connection, 'hf download {source.name}{revision}' gets it; a copy "
            "in a folder is named by the 'model_name' parameter of "
            "HFEmbeddingTransformer."
        ) from error
