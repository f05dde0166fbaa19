"""One fitted pipeline, asked by many threads at once."""

import gc
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from _in_process import forget_texts, list_models, record_loads
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline, make_pipeline

from plug_sklearn import HFEmbeddingTransformer, LayerAggregator, PlugMLPClassifier
from plug_sklearn.embedding import release_models

N_THREADS = 8
N_REQUESTS = 2000
NAMES = ("gold", "iron", "neon", "argon", "zinc", "tin", "lead", "helium")
TEXTS = [f"Is {name} a {kind}?" for name in NAMES for kind in ("metal", "gas", "<cls>")]
TEXTS += [f"{text} {'One, two, three! ' * n}" for n, text in enumerate(TEXTS[:4])]
LABELS = ["metal" in text for text in TEXTS]
BAD = (["gold", 7], [], "gold")

#: Texts beside others are rounded otherwise: by some units of float32 in the states,
#: and a probe as small as this one makes them no more than a hundred times larger.
ROUNDING = 1e-5


def make_pipes(model: str, store: Path | None = None) -> list[Pipeline]:
    """Two pipelines that share a model and a tokenizer, and use them differently."""
    ways = (
        {"layers": [0]},
        {
            "layers": [0],
            "pooling": "mean",
            "token_filter": "non_text",
            "special_tokens": "literal",
        },
    )
    return [
        make_pipeline(
            HFEmbeddingTransformer(model, device="cpu", store=store, **way),
            LayerAggregator(),
            PlugMLPClassifier(max_epochs=4, n_members=1, random_state=0, device="cpu"),
        ).fit(TEXTS, LABELS)
        for way in ways
    ]


def draw_requests(n_requests: int) -> list[tuple[int, NDArray[np.int64]]]:
    """Which of the pipelines each request asks, and with which texts."""
    generator = np.random.default_rng(0)
    return [
        (number % 2, generator.integers(0, len(TEXTS), generator.integers(1, 17)))
        for number in range(n_requests)
    ]


@pytest.fixture
def unhinted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what this test reads from being a repetition in another."""
    forget_texts(monkeypatch)


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads that give way a hundred times as often as they do."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(before / 100)
    yield
    sys.setswitchinterval(before)


def measure_memory() -> tuple[int, int]:
    """Python's objects, and the bytes that the process holds."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return sys.getallocatedblocks(), pages * os.sysconf("SC_PAGE_SIZE")


def count_hooks(model: str) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks)
        for module in list_models()[model].model.modules()
    )


@pytest.mark.usefixtures("unhinted", "hasty_threads")
def test_threads_get_what_one_thread_gets(llama: str) -> None:
    pipes = make_pipes(llama)
    expected = [
        np.concatenate([pipe.predict_proba([text]) for text in TEXTS]) for pipe in pipes
    ]
    # No text is so near to even that rounding could change its label.
    assert min(abs(e[:, 0] - 0.5).min() for e in expected) > 10 * ROUNDING

    def ask(which: int, rows: NDArray[np.int64]) -> None:
        found = pipes[which].predict_proba([TEXTS[row] for row in rows])
        np.testing.assert_allclose(found, expected[which][rows], rtol=0, atol=ROUNDING)
        labels = expected[which][rows].argmax(axis=1)
        np.testing.assert_array_equal(found.argmax(axis=1), labels)

    def ask_badly(texts: Sequence[object]) -> None:
        with pytest.raises((TypeError, ValueError), match="X given to HFEmbedding"):
            pipes[0].predict_proba(texts)

    def wait(answers: list[Future[None]]) -> None:
        for answer in answers:
            answer.result(timeout=60)
        answers.clear()

    requests = draw_requests(N_REQUESTS)
    with ThreadPoolExecutor(N_THREADS) as threads:
        answers: list[Future[None]] = []
        for number, request in enumerate(requests):
            if number == N_REQUESTS // 2:
                wait(answers)
                warm = measure_memory()
            answers.append(threads.submit(ask, *request))
            if number % 10 == 0:
                answers.append(threads.submit(ask_badly, BAD[number // 10 % len(BAD)]))
        wait(answers)
        objects, size = np.subtract(measure_memory(), warm).tolist()
    # Less than an object for each other request, and than 8 KiB for each: one array of
    # Python's, or the states of one pass, kept by each request would show.
    assert objects < N_REQUESTS // 4
    assert size < N_REQUESTS // 2 * 8192
    assert count_hooks(llama) == 0


@pytest.mark.usefixtures("unhinted")
def test_threads_that_come_first_load_one_model(
    llama: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = HFEmbeddingTransformer(llama, device="cpu").fit(TEXTS)
    expected = embedder.transform(TEXTS[:1])
    release_models()
    loads = record_loads(monkeypatch)
    barrier = Barrier(N_THREADS)

    def ask(_: int) -> NDArray[np.float32]:
        barrier.wait(timeout=60)
        return embedder.transform(TEXTS[:1])

    with ThreadPoolExecutor(N_THREADS) as threads:
        for found in threads.map(ask, range(N_THREADS)):
            np.testing.assert_array_equal(found, expected)
    assert len(loads) == 1


@pytest.mark.usefixtures("hasty_threads")
def test_threads_share_a_store(llama: str, tmp_path: Path) -> None:
    pipe = make_pipes(llama, tmp_path)[0]
    held = pipe.predict_proba(TEXTS)
    texts = [f"{text} Is it?" for text in TEXTS]
    with ThreadPoolExecutor(N_THREADS) as threads:
        answers = [
            (rows, threads.submit(pipe.predict_proba, [texts[row] for row in rows]))
            for _, rows in draw_requests(100)
        ]
        found = [(rows, answer.result(timeout=60)) for rows, answer in answers]
    stored = pipe.predict_proba(texts)
    for rows, probabilities in found:
        # The same states; a probe adds up other batches of them in another order.
        np.testing.assert_allclose(probabilities, stored[rows], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(pipe.predict_proba(TEXTS), held)


@pytest.mark.usefixtures("unhinted")
def test_silent_reading_has_no_part_in_progress_bars(
    llama: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = HFEmbeddingTransformer(llama, device="cpu").fit(TEXTS)
    monkeypatch.setattr("plug_sklearn.embedding._transformer.show_progress", None)
    assert len(embedder.transform(TEXTS)) == len(TEXTS)
