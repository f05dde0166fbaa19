"""Convert GGUF files to folders of safetensors, once, in the user's cache.

transformers parses a GGUF file separately for the configuration, the tokenizer and the
weights, in each process. Each time, this takes several seconds. A converted folder
loads as fast as any other.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

import transformers
from filelock import FileLock
from huggingface_hub.constants import HF_HOME
from tqdm.auto import tqdm

from plug_sklearn._packages import require_extra

#: Beside the models that were downloaded from the hub.
CACHE = Path(HF_HOME) / "plug_sklearn"
#: Bytes of the largest file that is converted: as float32, it takes several times the
#: room.
LARGEST = 2**30

_SCRIPT = Path(__file__).with_name("_gguf_conversion.py")


def convert_gguf(path: Path) -> Path | None:
    """Convert a GGUF file to a folder of safetensors, unless that has been done.

    The folder holds configuration, tokenizer and float32 weights, and is named after a
    digest of the file. It is None if the file is larger than ``LARGEST``, or if the
    conversion fails, for instance because the disk is full: then the file itself is
    loaded.
    """
    stat = path.stat()
    return _convert(path.resolve(), stat.st_size, stat.st_mtime_ns, CACHE)


@lru_cache(maxsize=16)
def _convert(path: Path, size: int, modified: int, cache: Path) -> Path | None:
    name = f"{path.stem}-{_digest(path)}-transformers-{transformers.__version__}"
    folder = cache / name
    if size <= LARGEST and folder.is_dir():
        return folder
    require_extra("gguf", f"The GGUF file {str(path)!r}")
    if size > LARGEST:
        return None
    try:
        cache.mkdir(parents=True, exist_ok=True)
        # Of several workers that need the model, one converts it.
        with FileLock(cache / f"{name}.lock"):
            if not folder.is_dir():
                _tell(f"Converting {path.name} to safetensors, once: {folder}")
                _write_folder(path, folder)
    except (OSError, subprocess.CalledProcessError) as error:
        last = str(getattr(error, "stderr", None) or error).strip().splitlines()[-1:]
        _tell(
            f"{path.name} cannot be converted, and is loaded as it is: {''.join(last)}"
        )
        return None
    return folder


def _write_folder(path: Path, folder: Path) -> None:
    """Convert a file, in a process of its own: a folder that is there is whole."""
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{folder.name}."))
    try:
        subprocess.run(
            # -P: the modules beside the script are not for import.
            [sys.executable, "-P", str(_SCRIPT), str(path), str(unfinished)],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "TQDM_DISABLE": "1", "CUDA_VISIBLE_DEVICES": ""},
        )
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _digest(path: Path) -> str:
    digest = blake2b(digest_size=8)
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _tell(message: str) -> None:
    # Above a progress bar, if there is one.
    tqdm.write(message, file=sys.stderr)
