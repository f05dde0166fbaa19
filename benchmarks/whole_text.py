"""What several poolings, token activations and conversations cost."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plug_sklearn import HFEmbeddingTransformer
from plug_sklearn.embedding import ActivationStore

PARTS = ("rs", "attn", "mlp")
LAYER = 13
#: Texts whose token activations are stored.
N_STORED = 2000

#: Work, what it is compared with, seconds of both, and how many times at most.
Figure = tuple[str, str, float, float, float]


def measure_whole_text(
    model: str, texts: Sequence[str], folder: Path
) -> Iterator[Figure]:
    """Compare with one pooled vector a text, and with a memory map.

    Parameters
    ----------
    model : str
        Folder of a causal model with a chat template.
    texts : sequence of str
        Statements.
    folder : Path
        An empty folder.

    Yields
    ------
    tuple
        A line of the table.
    """
    whole: dict[str, Any] = {"parts": PARTS}
    both = embed(model, texts, pooling=("last", "mean"), **whole)
    check_equal(both[:, :, ::2], embed(model, texts, **whole))
    yield (
        f"two poolings, 30 layers x 3 parts, {len(texts):,} statements",
        "one pooling",
        *alternate(
            lambda: embed(model, texts, pooling=("last", "mean"), **whole),
            lambda: embed(model, texts, **whole),
        ),
        1.05,
    )
    one: dict[str, Any] = {"layers": LAYER}
    tokens = embed(model, texts, pooling=None, **one)
    check_equal(np.stack([item[-1] for item in tokens]), embed(model, texts, **one))
    yield (
        f"token activations of layer {LAYER}, same statements",
        "the last token of that layer",
        *alternate(
            lambda: embed(model, texts, pooling=None, **one),
            lambda: embed(model, texts, **one),
        ),
        1.15,
    )
    yield measure_conversations(model, texts)
    yield from measure_store(model, texts, folder)


def measure_conversations(model: str, texts: Sequence[str]) -> Figure:
    """Compare the time before the first pass with that of the same prompts."""
    conversations = [
        [
            {"role": "user", "content": text},
            {"role": "assistant", "content": f"Is that so? {text}"},
            {"role": "user", "content": f"It is. {text}"},
        ]
        for text in texts
    ]
    embedder = HFEmbeddingTransformer(model, device="cpu", layers=0)
    tokenizer = embedder.fit(conversations)._describe_model().prompt_reader.tokenizer
    prompts = list(
        map(str, tokenizer.apply_chat_template(conversations, tokenize=False))
    )
    times = alternate(
        lambda: embedder.selected_tokens(conversations),
        lambda: embedder.selected_tokens(prompts),
        repeats=7,
    )
    work = f"{len(texts):,} conversations of three turns, until they are tokens"
    return work, "the same prompts as strings", *times, 1.3


def measure_store(model: str, texts: Sequence[str], folder: Path) -> Iterator[Figure]:
    """Compare token activations in a store with one memory map of the same bytes."""
    many = [f"{text} {number}" for number, text in enumerate(texts)]
    many = [*many, *(f"No: {text}" for text in many)][:N_STORED]
    parameters: dict[str, Any] = {"pooling": None, "layers": LAYER}
    computing, writing, reading, mapped_writing, mapped_reading = [], [], [], [], []
    for turn in range(3):
        store = folder / f"store {turn}"
        start = perf_counter()
        states = embed(model, many, **parameters)
        computing.append(perf_counter() - start)
        start = perf_counter()
        embed(model, many, store=store, **parameters)
        writing.append(perf_counter() - start - computing[-1])
        start = perf_counter()
        again = embed(model, many, store=store, **parameters)
        reading.append(perf_counter() - start)
        check_equal(np.concatenate(again), np.concatenate(states))
        flat = np.concatenate(states)
        start = perf_counter()
        mapped = np.memmap(folder / f"map {turn}", flat.dtype, "w+", shape=flat.shape)
        mapped[:] = flat
        mapped.flush()
        mapped_writing.append(perf_counter() - start)
        start = perf_counter()
        mapped = np.memmap(folder / f"map {turn}", flat.dtype, "r", shape=flat.shape)
        np.array(mapped)
        mapped_reading.append(perf_counter() - start)
    with ActivationStore(folder / "store 0") as opened:
        assert len(opened.models()) == 1
    work = f"token activations of {len(many):,} texts in a store"
    yield f"{work}: write", "numpy.memmap", median(writing), median(mapped_writing), 2.0
    yield f"{work}: read", "numpy.memmap", median(reading), median(mapped_reading), 2.0


def embed(model: str, texts: Sequence[Any], **parameters: Any) -> NDArray[Any]:  # noqa: ANN401 - of the embedder
    """Embed texts on the CPU with a model that is already loaded."""
    embedder = HFEmbeddingTransformer(model, device="cpu", **parameters)
    return embedder.fit_transform(list(texts))


def check_equal(found: NDArray[Any], expected: NDArray[Any]) -> None:
    """Stop where two ways of computing the same differ beyond rounding."""
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    if not error < 1e-5:
        raise SystemExit(f"Results differ by {error:.1e}: there is nothing to time.")


def alternate(
    ours: Callable[[], object], theirs: Callable[[], object], repeats: int = 3
) -> tuple[float, float]:
    """Time two calls by turns, in seconds: the median of each."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for run, kept in zip((ours, theirs), times, strict=True):
            start = perf_counter()
            run()
            kept.append(perf_counter() - start)
    return median(times[0]), median(times[1])
