"""Measure what several poolings, token activations and conversations cost."""

import ctypes
import platform
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plug_sklearn import HFEmbeddingTransformer
from plug_sklearn.embedding import ActivationStore
from plug_sklearn.embedding._embed import digest_text

PARTS = ("rs", "attn", "mlp")
LAYER = 13
#: Parameters of glibc's mallopt.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
#: Texts whose token activations are stored, and those that are written at once.
N_STORED, N_AT_ONCE = 2000, 250

Embed = Callable[..., NDArray[Any]]
Alternate = Callable[..., tuple[float, float]]
#: Work, what it is compared with, seconds of both, and how many times at most.
Figure = tuple[str, str, float, float, float]


def measure_whole_text(
    model: str,
    texts: Sequence[str],
    folder: Path,
    embed: Embed,
    check_equal: Callable[[NDArray[Any], NDArray[Any]], None],
    alternate: Alternate,
) -> Iterator[Figure]:
    """Compare with one pooled vector a text, and with a memory map."""
    whole: dict[str, Any] = {"parts": PARTS}
    _keep_memory()
    both = embed(model, texts, pooling=("last", "mean"), **whole)
    check_equal(both[:, :, ::2], embed(model, texts, **whole))
    yield (
        f"two poolings, 30 layers x 3 parts, {len(texts):,} statements",
        "one pooling",
        *alternate(
            lambda: embed(model, texts, pooling=("last", "mean"), **whole),
            lambda: embed(model, texts, **whole),
            repeats=7,
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
            repeats=5,
        ),
        1.15,
    )
    yield _measure_conversations(model, texts, alternate)
    many = list(dict.fromkeys([*texts, *(f"No: {text}" for text in texts)]))[:N_STORED]
    states = embed(model, many, pooling=None, **one)
    yield from _measure_store(many, list(states), folder)


def _keep_memory() -> None:
    """Let this process keep the memory that it frees, where it uses glibc.

    A virtual machine may return freed memory to its host. To get it again took up to a
    second for these results, which is more than what several poolings cost.
    """
    if platform.libc_ver()[0] == "glibc":
        adjust = ctypes.CDLL(None).mallopt
        adjust(M_MMAP_MAX, 0)
        adjust(M_TRIM_THRESHOLD, 2**31 - 1)
        adjust(M_TOP_PAD, 2**30)


def _measure_conversations(
    model: str, texts: Sequence[str], alternate: Alternate
) -> Figure:
    """Compare the time until they are tokens with that of the same prompts."""
    conversations = [
        [
            {"role": "user", "content": text},
            {"role": "assistant", "content": f"Is that so? {text}"},
            {"role": "user", "content": f"It is. {text}"},
        ]
        for text in texts
    ]
    embedder = HFEmbeddingTransformer(
        model, device="cpu", layers=0, pool_over="prompt"
    ).fit(conversations)
    tokenizer = embedder._describe_model().prompt_reader.tokenizer
    prompts = tokenizer.apply_chat_template(conversations, tokenize=False)
    times = alternate(
        lambda: embedder.selected_tokens(conversations),
        lambda: embedder.selected_tokens(list(prompts)),
        repeats=7,
    )
    work = f"{len(texts):,} conversations of three turns, until they are tokens"
    return work, "the same prompts as strings", *times, 1.3


def _measure_store(
    texts: Sequence[str], states: list[NDArray[np.float32]], folder: Path
) -> Iterator[Figure]:
    """Compare token activations in a store with one memory map of the same bytes."""
    digests = [digest_text(text) for text in texts]
    flat = np.concatenate(states)
    times: dict[str, list[float]] = {}

    def note(name: str, run: Callable[[], object]) -> None:
        start = perf_counter()
        run()
        times.setdefault(name, []).append(perf_counter() - start)

    def write_map(path: Path) -> None:
        mapped = np.memmap(path, flat.dtype, "w+", shape=flat.shape)
        mapped[:] = flat
        mapped.flush()

    for turn in range(5):
        with ActivationStore(folder / f"store {turn}") as store:
            key = store.register("model")

            def write(store: ActivationStore = store, key: bytes = key) -> None:
                for start in range(0, len(texts), N_AT_ONCE):
                    some = slice(start, start + N_AT_ONCE)
                    store.write(
                        key, digests[some], [LAYER], ["rs"], states[some], poolings=None
                    )

            out = np.empty(len(texts), dtype=object)
            path = folder / f"map {turn}"
            note("write", write)
            note("write a map", lambda path=path: write_map(path))
            note(
                "read",
                lambda store=store, key=key, out=out: store.read_into(
                    key, digests, [LAYER], ["rs"], out, poolings=None
                ),
            )
            note(
                "read a map",
                lambda path=path: np.array(
                    np.memmap(path, flat.dtype, "r", shape=flat.shape)
                ),
            )
            assert all(map(np.array_equal, out, states))
    for name in ("write", "read"):
        seconds, mapped = median(times[name]), median(times[f"{name} a map"])
        work = f"{name} token activations of {len(texts):,} texts, {flat.nbytes:,} B"
        yield work, "numpy.memmap", seconds, mapped, 2.0
