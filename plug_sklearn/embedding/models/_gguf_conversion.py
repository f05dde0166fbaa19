"""The script that converts one GGUF file: ``python _gguf_conversion.py FILE FOLDER``.

It runs in a process of its own, because it replaces functions of the package gguf, and
because the progress bar of transformers cannot be hidden otherwise.
"""

import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer


def write_folder(path: Path, folder: Path) -> None:
    """Write the configuration, tokenizer and float32 weights of a file to a folder.

    The folder must be empty. Raises a ValueError if the file lacks weights.
    """
    # transformers parses the file for each of the three, and computes the names of all
    # tensors for each module. Either takes seconds.
    gguf.GGUFReader = cache(gguf.GGUFReader)  # type: ignore[assignment, misc]  # a class
    gguf.get_tensor_name_map = cache(gguf.get_tensor_name_map)
    place, name = str(path.parent), path.name
    config = AutoConfig.from_pretrained(place, gguf_file=name)
    tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=name)
    # With its head, where there is one: adapters may change it.
    is_causal = type(config) in AutoModelForCausalLM._model_mapping
    loader = AutoModelForCausalLM if is_causal else AutoModel
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
