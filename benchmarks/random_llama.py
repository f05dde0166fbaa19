"""Build models of random weights, and a tokenizer with a token for each word."""

from pathlib import Path

import numpy as np
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

#: The shape of a Llama of a billion parameters.
BILLION = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 4096,
}
TINY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}
N_WORDS = 5_000


def save_random_llama(folder: str | Path, shape: dict[str, int]) -> str:
    """Save a Llama of random weights and its tokenizer; gives the folder."""
    config = transformers.LlamaConfig(vocab_size=N_WORDS, **shape)
    return save_random_model(folder, config)


def save_random_model(folder: str | Path, config: transformers.PreTrainedConfig) -> str:
    """Save a model of random weights and a tokenizer; gives the folder."""
    words = {f"w{n}": n for n in range(N_WORDS)}
    backend = Tokenizer(models.WordLevel(words, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="w0"
    )
    tokenizer.save_pretrained(folder)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    return str(folder)


def draw_texts(lengths: "np.typing.ArrayLike", seed: int = 0) -> list[str]:
    """Draw a text of random words for each length in tokens."""
    generator = np.random.default_rng(seed)
    return [
        " ".join(f"w{word}" for word in generator.integers(1, N_WORDS, length))
        for length in np.asarray(lengths)
    ]
