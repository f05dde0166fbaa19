"""Features of tokens, of which one of each text tells its label."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

N_FEATURES = 8


def make_texts(
    n_texts: int, seed: int = 0, longest: int = 12
) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
    """Make texts of 1 to ``longest`` tokens, and their labels."""
    rng = np.random.default_rng(seed)
    y = np.arange(n_texts) % 2
    X = np.empty(n_texts, dtype=object)
    for number in range(n_texts):
        length = rng.integers(1, longest + 1)
        text = rng.normal(size=(length, N_FEATURES))
        text[rng.integers(length), :2] = 5, 8 * y[number] - 4
        X[number] = text.astype(np.float32)
    return X, y


def gather(texts: Iterable[object]) -> NDArray[np.object_]:
    """Put arrays into an array of objects."""
    items = list(texts)
    gathered = np.empty(len(items), dtype=object)
    for number, text in enumerate(items):
        gathered[number] = text
    return gathered
