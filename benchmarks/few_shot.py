"""Build few-shot prompts, and tiny random models: a hybrid, and one with a window."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import transformers
from numpy.typing import NDArray
from random_llama import N_WORDS, draw_texts, save_random_model

#: Tokens that all prompts begin with; prompts, and those that the padded path runs: its
#: time grows in proportion.
N_SHARED, N_PROMPTS, N_PADDED = 400, 200, 20
_SIZES = {
    "vocab_size": N_WORDS,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 2048,
}
HYBRID = transformers.Qwen3_5TextConfig(
    **_SIZES,
    layer_types=["linear_attention"] * 3 + ["full_attention"],
    linear_num_key_heads=2,
    linear_num_value_heads=4,
    linear_key_head_dim=16,
    linear_value_head_dim=16,
)
#: Its window is shorter than what the prompts share.
WINDOWED = transformers.MistralConfig(**_SIZES, sliding_window=128)

Embed = Callable[[str, Sequence[str]], NDArray[np.float32]]


def measure_few_shot(
    folder: Path,
    embed: Embed,
    embed_padded: Embed,
    check_equal: Callable[[NDArray[np.float32], NDArray[np.float32]], None],
    alternate: Callable[
        [Callable[[], object], Callable[[], object]], tuple[float, float]
    ],
) -> list[tuple[str, str, float, float, float]]:
    """Compare reading a shared beginning once with reading it in every prompt.

    Returns
    -------
    list of tuple
        Work, what it is compared with, both times in seconds, and the goal.
    """
    (beginning,) = draw_texts([N_SHARED])
    endings = draw_texts(np.random.default_rng(1).integers(4, 16, N_PROMPTS), seed=1)
    texts = [f"{beginning} {ending}" for ending in endings]
    rows = []
    for kind, config in (("hybrid", HYBRID), ("windowed", WINDOWED)):
        model = save_random_model(folder / kind, config)
        few = texts[:N_PADDED]
        check_equal(embed(model, texts)[:N_PADDED], embed_padded(model, few))
        ours, few_padded = alternate(
            lambda model=model: embed(model, texts),
            lambda model=model, few=few: embed_padded(model, few),
        )
        work = (
            f"{N_PROMPTS} prompts that share {N_SHARED} tokens, tiny random {kind} "
            f"model ({config.model_type}; the padded path ran {N_PADDED} of them)"
        )
        theirs = few_padded * N_PROMPTS / N_PADDED
        rows.append((work, "our own padded path", ours, theirs, 5.0))
    return rows
