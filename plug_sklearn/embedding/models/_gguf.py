"""Convert GGUF files to folders of safetensors, once, in the user's cache.

transformers parses a GGUF file separately for the configuration, the tokenizer and the
weights, in each process. Each time, this takes several seconds. A converted folder
loads as fast as any other.

This file is also the script that converts one GGUF file: ``python _gguf.py FILE
FOLDER``. It runs in a process of its own, because it replaces functions of the package
gguf, and because the progress bar of transformers cannot be hidden otherwise.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache, lru_cache
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any

import torch
import transformers
from filelock import FileLock
from huggingface_hub.constants import HF_HOME
from tqdm.auto import tqdm

#: Beside the models that were downloaded from the hub.
CACHE = Path(HF_HOME) / "plug_sklearn"
#: Bytes of the largest file that is converted: as float32, it takes several times the
#: room.
LARGEST = 2**30


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
def _convert(path: Path, size: int, modified: int, within: Path) -> Path | None:
    # The script runs without this package.
    from plug_sklearn._packages import require_extra

    with path.open("rb") as stream:
        digest = file_digest(stream, lambda: blake2b(digest_size=8)).hexdigest()
    name = f"{path.stem}-{digest}-transformers-{transformers.__version__}"
    folder = within / name
    if size <= LARGEST and folder.is_dir():
        return folder
    require_extra("gguf", f"The GGUF file {str(path)!r}")
    if size > LARGEST:
        return None
    try:
        within.mkdir(parents=True, exist_ok=True)
        # Of several workers that need the model, one converts it.
        with FileLock(within / f"{name}.lock"):
            if not folder.is_dir():
                _tell(f"Converting {path.name} to safetensors, once: {folder}")
                _run_script(path, folder)
    except (OSError, subprocess.CalledProcessError) as error:
        last = str(getattr(error, "stderr", None) or error).strip().splitlines()[-1:]
        _tell(
            f"{path.name} cannot be converted, and is loaded as it is: {''.join(last)}"
        )
        return None
    return folder


def _run_script(path: Path, folder: Path) -> None:
    """Convert a file, in a process of its own: a folder that is there is whole."""
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{folder.name}."))
    try:
        subprocess.run(
            # -P: the modules beside the script are not for import.
            [sys.executable, "-P", __file__, str(path), str(unfinished)],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "TQDM_DISABLE": "1", "CUDA_VISIBLE_DEVICES": ""},
        )
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _tell(message: str) -> None:
    # Above a progress bar, if there is one.
    tqdm.write(message, file=sys.stderr)


def write_folder(path: Path, folder: Path) -> None:
    """Write the configuration, tokenizer and float32 weights of a file to a folder.

    The folder must be empty. Raises a ValueError if the file lacks weights.
    """
    import gguf

    # transformers parses the file for each of the three, and computes the names of all
    # tensors for each module. Either takes seconds.
    gguf.GGUFReader = cache(gguf.GGUFReader)  # type: ignore[assignment, misc]  # a class
    gguf.get_tensor_name_map = cache(gguf.get_tensor_name_map)
    place, name = str(path.parent), path.name
    config = transformers.AutoConfig.from_pretrained(place, gguf_file=name)
    tokenizer = transformers.AutoTokenizer.from_pretrained(place, gguf_file=name)
    # With its head, where there is one: adapters may change it.
    causal: Any = transformers.AutoModelForCausalLM
    loader = causal if type(config) in causal._model_mapping else transformers.AutoModel
    loaded: Any = loader.from_pretrained(
        place,
        gguf_file=name,
        config=config,
        dtype=torch.float32,
        output_loading_info=True,
    )
    model, report = loaded
    if report["missing_keys"]:
        raise ValueError(f"Weights are missing: {sorted(report['missing_keys'])[0]}")
    # The weights are plain floats by now.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    _open_to_readers(folder)


def _open_to_readers(folder: Path) -> None:
    """Set the permissions of the files to those of any new file, for shared caches."""
    mask = os.umask(0)
    os.umask(mask)
    for file in folder.iterdir():
        file.chmod(0o666 & ~mask)
    folder.chmod(0o777 & ~mask)


if __name__ == "__main__":
    write_folder(Path(sys.argv[1]), Path(sys.argv[2]))
