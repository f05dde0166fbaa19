"""Adapters with random weights, and what plain PEFT makes of a text with them."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

TEXTS = ("The city of Paris", "Gold!")
LORA: dict[str, Any] = {
    "r": 2,
    "lora_alpha": 6,
    "target_modules": ["q_proj", "down_proj"],
}


def train_adapter(
    auto: str,
    base: str,
    folder: Path,
    config: peft.PeftConfig,
    **loading: object,
) -> peft.PeftModel:
    """Adapt a model of a class with random weights, and save the adapter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, auto).from_pretrained(base, **loading)
        adapted = peft.get_peft_model(model, config)
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.data.normal_(0, 0.3)
    with warnings.catch_warnings():
        # Where embeddings are adapted, peft says that it saves them whole.
        warnings.filterwarnings("ignore", message=".*save_embedding_layers.*")
        adapted.save_pretrained(folder)
    return adapted.eval()


def read_blocks(
    model: torch.nn.Module, blocks: str, folder: str, texts: Sequence[str] = TEXTS
) -> NDArray[np.float32]:
    """Run texts one at a time, and keep what each block puts out for the last token."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    states: list[NDArray[np.float32]] = []

    def keep(_: object, __: object, output: Any) -> None:  # noqa: ANN401 - any output
        tensor = output[0] if isinstance(output, tuple) else output
        states.append(tensor[0, -1].numpy())

    handles = [
        block.register_forward_hook(keep) for block in model.get_submodule(blocks)
    ]
    for text in texts:
        inputs = dict(tokenizer(text, return_tensors="pt"))
        inputs.pop("token_type_ids", None)
        if model.config.is_encoder_decoder:
            inputs["decoder_input_ids"] = inputs["input_ids"]
        with torch.no_grad():
            model(**inputs)
    for handle in handles:
        handle.remove()
    return np.stack(states).reshape(len(texts), len(handles), 1, -1)


def rename_weights(folder: Path, rename: Callable[[str], str | None]) -> None:
    """Rename the weights in a folder's one file; None takes a weight away."""
    (file,) = folder.glob("*.safetensors")
    weights = {rename(name): tensor for name, tensor in load_file(file).items()}
    weights.pop(None, None)
    save_file(weights, file, metadata={"format": "pt"})
