"""A cache of the hub, with repositories made of local folders."""

import shutil
from pathlib import Path

COMMIT = "0123456789abcdef" * 2 + "01234567"


def fill_cache(
    cache: Path,
    repository: str,
    folder: str | Path,
    *,
    commit: str = COMMIT,
    revision: str = "main",
    subfolder: str = "",
) -> dict[str, object]:
    """Put a folder's files into a cache; gives the arguments that find them there."""
    root = cache / f"models--{repository.replace('/', '--')}"
    shutil.copytree(folder, root / "snapshots" / commit / subfolder)
    (root / "refs").mkdir(exist_ok=True)
    (root / "refs" / revision).write_text(commit)
    return {"cache_dir": cache, "local_files_only": True}
