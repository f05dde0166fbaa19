"""Models with a language-model head, saved as a user's local folders would be."""

from collections.abc import Callable
from pathlib import Path

import pytest
import transformers
from _written import build_causal
from transformers import PreTrainedConfig, PreTrainedTokenizerFast

#: What a chat template writes where the answer begins.
OPENING = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
SIZES = {
    "vocab_size": 330,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "eos_token_id": 2,
}


@pytest.fixture(scope="session")
def save_causal(
    tmp_path_factory: pytest.TempPathFactory,
    byte_tokenizer: Callable[..., PreTrainedTokenizerFast],
) -> Callable[..., str]:
    """Save a random causal model of a configuration; gives the folder."""

    def save(config: PreTrainedConfig, **options: object) -> str:
        folder: Path = tmp_path_factory.mktemp("causal")
        build_causal(config).save_pretrained(folder, **options)
        tokenizer = byte_tokenizer()
        tokenizer.chat_template += OPENING
        tokenizer.save_pretrained(folder)
        return str(folder)

    return save


@pytest.fixture(scope="session")
def writer(save_causal: Callable[..., str]) -> str:
    """Folder of a 3-layer decoder with a head of its own, 128 positions."""
    return save_causal(transformers.LlamaConfig(**SIZES))
