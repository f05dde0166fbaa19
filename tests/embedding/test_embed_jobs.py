"""Texts through a store and over workers: of this machine, and of a cluster."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import joblib
import numpy as np
import pytest
import torch
from _in_process import forget_texts
from distributed import Client, LocalCluster
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from plug_sklearn import HFEmbeddingTransformer
from plug_sklearn.embedding import ActivationStore, _embed
from plug_sklearn.embedding._embed import (
    EmbeddingJob,
    compute_in_jobs,
    cut_prompts,
    digest_text,
    find_worker_device,
    note_repetition,
)
from plug_sklearn.embedding.passes import Request
from plug_sklearn.embedding.prompts import TokenizedPrompts

NAMES = ("gold", "iron", "neon", "argon", "zinc", "tin", "lead", "helium")
TEXTS = [f"The metal {name} has number {n}." for name in NAMES for n in range(12)]
PROMPTS = st.lists(
    st.lists(st.integers(1, 3), min_size=1, max_size=9), min_size=1, max_size=40
)


def join(prompts: list[list[int]]) -> TokenizedPrompts:
    return TokenizedPrompts.join([np.array(prompt) for prompt in prompts])


@given(PROMPTS, st.integers(1, 9), st.integers(1, 50))
def test_each_prompt_is_in_one_piece(
    prompts: list[list[int]], n_pieces: int, most: int
) -> None:
    pieces = cut_prompts(join(prompts), n_pieces, most)
    assert all(len(piece) for piece in pieces)
    assert sorted(np.concatenate(pieces)) == list(range(len(prompts)))


def test_pieces_are_cut_between_shared_prefixes() -> None:
    beginnings = np.repeat([5, 8, 6, 7], [9, 11, 10, 12])
    prompts = join([[first, first, first, n] for n, first in enumerate(beginnings)])
    pieces = cut_prompts(prompts, 4, 1000)
    assert [set(beginnings[piece]) for piece in pieces] == [{5}, {6}, {7}, {8}]


def test_pieces_are_of_like_work_whatever_is_asked_to_be_most() -> None:
    generator = np.random.default_rng(0)
    prompts = join([generator.integers(0, 10**6, 20).tolist() for _ in range(500)])
    for n_pieces, most in ((10, 10**6), (1, 1000)):
        sizes = [20 * len(piece) for piece in cut_prompts(prompts, n_pieces, most)]
        assert len(sizes) == 10
        assert max(sizes) <= 1.5 * 1000


@pytest.mark.parametrize("n_pieces", [2, 8])
def test_pieces_are_of_like_work_after_what_all_share(n_pieces: int) -> None:
    prompts = join([[*range(40), 100 + n, n] for n in range(200)])
    sizes = [len(piece) for piece in cut_prompts(prompts, n_pieces, 10**6)]
    assert len(sizes) == n_pieces
    assert max(sizes) <= 1.5 * 200 / n_pieces


def test_no_piece_costs_more_to_begin_than_to_do() -> None:
    prompts = join([[*range(500), 1000 + n] for n in range(100)])
    assert len(cut_prompts(prompts, 8, 10**6)) == 1


@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
def test_workers_give_what_one_process_gives(llama: str, backend: str) -> None:
    # Of uneven length: a piece's batches are then not in the order of its prompts.
    texts = [
        " ".join([f"{n} {name}"] * (n % 7 + 1)) for name in NAMES for n in range(9)
    ]
    expected = HFEmbeddingTransformer(llama, device="cpu").fit_transform(texts)
    embedder = HFEmbeddingTransformer(llama, batch_tokens=64, device="auto", n_jobs=2)
    with joblib.parallel_config(backend):
        found = embedder.fit_transform(texts)
    assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_bad_text_in_a_worker_s_share_is_the_same_error(llama: str) -> None:
    embedder = HFEmbeddingTransformer(llama, device="cpu", n_jobs=2).fit(TEXTS)
    with pytest.raises(ValueError, match="at least one token"):
        embedder.transform([*TEXTS, ""])


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_long_texts_are_counted_once_over_all_pieces(
    llama: str, tmp_path: Path, n_jobs: int, stored: bool
) -> None:
    embedder = HFEmbeddingTransformer(
        llama,
        device="cpu",
        n_jobs=n_jobs,
        max_length=3,
        batch_tokens=16,
        store=tmp_path / "store" if stored else None,
    )
    with pytest.warns(UserWarning, match=f"{len(TEXTS)} of {len(TEXTS)}") as caught:
        embedder.fit_transform(TEXTS)
    assert len(caught) == 1


@pytest.mark.parametrize("n_jobs", ["two", 0, 1.5])
def test_n_jobs_that_is_no_number_of_workers_is_refused(
    llama: str, n_jobs: object
) -> None:
    with pytest.raises(ValueError, match=f"'n_jobs'.*Got {n_jobs!r} instead"):
        HFEmbeddingTransformer(llama, n_jobs=n_jobs).fit(TEXTS)


def test_why_there_are_no_tries_is_said_once(
    bert: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embedder = HFEmbeddingTransformer(
        bert, device="cpu", store=tmp_path, batch_tokens=16, verbose=True
    )
    embedder.fit_transform(TEXTS)
    assert capsys.readouterr().err.count("No token tries") == 1


@pytest.mark.parametrize(
    ("identity", "left", "device"),
    [
        ((), [80, 80, 80], 0),
        ((1,), [80, 80, 80], 0),
        ((2,), [80, 80, 80], 1),
        ((3,), [80, 80, 80], 2),
        ((1, 4), [80, 80, 80], 0),
        # A worker that stands in for one that died takes the card that it left.
        ((6,), [70, 70, 80], 2),
        ((7,), [70, 80, 70], 1),
    ],
)
def test_worker_processes_spread_over_the_cards(
    monkeypatch: pytest.MonkeyPatch,
    identity: tuple[int, ...],
    left: list[int],
    device: int,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda card: (left[card], 80))
    process = SimpleNamespace(_identity=identity)
    monkeypatch.setattr(multiprocessing, "current_process", lambda: process)
    choose = find_worker_device.__wrapped__
    assert choose() == torch.device("cuda", device)


def test_worker_s_own_processes_are_numbered() -> None:
    number = joblib.delayed(lambda: multiprocessing.current_process()._identity)
    found = joblib.Parallel(2)(number() for _ in range(8))
    assert all(len(identity) == 1 for identity in found)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Client]:
    """Two worker processes of one thread, behind a scheduler."""
    with (
        LocalCluster(2, threads_per_worker=1, dashboard_address=None) as workers,
        Client(workers) as client,
    ):
        yield client


def list_open_files() -> list[str]:
    return [str(path.resolve()) for path in Path("/proc/self/fd").iterdir()]


def test_cluster_gives_what_one_process_gives_and_only_the_client_writes(
    llama: str, cluster: Client, tmp_path: Path
) -> None:
    embedder = HFEmbeddingTransformer(llama, device="cpu").fit(TEXTS)
    expected = embedder.transform(TEXTS)
    embedder.set_params(store=tmp_path / "store")
    with joblib.parallel_config("dask"):
        found = embedder.transform(TEXTS)
    assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    with ActivationStore(tmp_path / "store") as store:
        assert len(store) == len(TEXTS)
    files = cluster.run(list_open_files)
    assert len(files) == 2
    assert not any(str(tmp_path) in name for names in files.values() for name in names)
    assert_array_equal(embedder.transform(TEXTS), found)


def test_cluster_that_loses_a_worker_still_gives_all(
    llama: str, cluster: Client
) -> None:
    embedder = HFEmbeddingTransformer(llama, device="cpu", batch_tokens=32).fit(TEXTS)
    expected = embedder.transform(TEXTS)
    pids = list(cluster.run(os.getpid).values())
    with joblib.parallel_config("dask"):
        pieces = compute_in_jobs(
            embedder._describe_model(),
            TEXTS,
            Request(embedder.layers_, embedder.parts_, ("last",)),
            None,
            False,
        )
        read = [next(pieces)]
        os.kill(pids[0], signal.SIGKILL)
        read += pieces
    found = np.empty_like(expected)
    found[np.concatenate([numbers for numbers, _ in read])] = np.concatenate(
        [states for _, states in read]
    )
    assert sum(len(numbers) for numbers, _ in read) == len(TEXTS)
    assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


PARTS = ("rs", "attn", "mlp")
WORDS = [f"{word} {n}" for word in ("a", "b", "c") for n in range(7)]
HIDDEN_SIZE = 4


def states_of(
    texts: Sequence[str], layers: Sequence[int], parts: Sequence[str]
) -> NDArray[np.float32]:
    """What a text's activations are: of its own, its layer's and its part's."""
    return np.array(
        [
            [
                [
                    [sum(text.encode()), layer, PARTS.index(part), unit]
                    for part in parts
                    for unit in [0]
                ]
                for layer in layers
            ]
            for text in texts
        ],
        dtype=np.float32,
    ).reshape(len(texts), len(layers), len(parts), HIDDEN_SIZE)


class Model:
    """Computes two texts at a time, and keeps what it was asked for."""

    batch_tokens = 2

    def __init__(
        self, fail_on: str | None = None, pooling: str = "last", settings: str = "same"
    ) -> None:
        self.asked: list[tuple[str, tuple[int, ...], tuple[str, ...]]] = []
        self.fail_on = fail_on
        self.pooling = pooling
        self.settings = settings

    def check_model(self) -> None:
        pass

    def register(self, store: ActivationStore, *, conversations: bool) -> bytes:
        assert not conversations
        return store.register("model", settings=self.settings)

    def compute(
        self, texts: Sequence[str], asked: Request
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        layers, parts = asked.layers, asked.parts
        for start in range(0, len(texts), 2):
            some = texts[start : start + 2]
            if self.fail_on in some:
                raise RuntimeError("out of luck")
            self.asked += [(text, layers, parts) for text in some]
            yield np.arange(start, start + len(some)), states_of(some, layers, parts)


def embed(
    path: Path,
    model: Model,
    texts: Sequence[str] = WORDS,
    layers: Sequence[int] = (0, 1),
    parts: Sequence[str] = ("rs",),
) -> NDArray[np.float32]:
    out = np.full((len(texts), len(layers), len(parts), HIDDEN_SIZE), -1, np.float32)
    done: list[int] = []
    EmbeddingJob(
        model,
        texts,
        layers=tuple(layers),
        parts=tuple(parts),
        poolings=(model.pooling,),
        out=out,
        dtype=np.dtype(np.float32),
        rows=np.arange(len(texts)),
        n_jobs=None,
        spread=False,
        report=done.append,
    ).run(str(path))
    assert sum(done) == len(texts)
    return out


def test_each_text_is_computed_once_and_comes_back_right(tmp_path: Path) -> None:
    model = Model()
    expected = states_of(WORDS, (0, 1), ("rs",))
    for _ in range(2):
        assert_array_equal(embed(tmp_path, model), expected)
    assert sorted(text for text, *_ in model.asked) == sorted(WORDS)


def test_fewer_layers_and_parts_compute_nothing(tmp_path: Path) -> None:
    embed(tmp_path, Model(), layers=(0, 1, 2), parts=PARTS)
    model = Model()
    found = embed(tmp_path, model, layers=(2, 0), parts=("mlp",))
    assert_array_equal(found, states_of(WORDS, (2, 0), ("mlp",)))
    assert not model.asked


def test_more_layers_compute_only_what_is_missing(tmp_path: Path) -> None:
    embed(tmp_path, Model(), WORDS[:5], layers=(0,))
    model = Model()
    found = embed(tmp_path, model, layers=(0, 1))
    assert_array_equal(found, states_of(WORDS, (0, 1), ("rs",)))
    asked = {text: layers for text, layers, _ in model.asked}
    assert asked == {text: (1,) if text in WORDS[:5] else (0, 1) for text in WORDS}


def test_other_settings_share_nothing(tmp_path: Path) -> None:
    embed(tmp_path, Model())
    model = Model(settings="other")
    embed(tmp_path, model)
    assert len(model.asked) == len(WORDS)


def test_another_pooling_is_computed_and_keeps_what_is_there(tmp_path: Path) -> None:
    last, mean = Model(), Model(pooling="mean")
    for _ in range(2):
        embed(tmp_path, last)
        embed(tmp_path, mean)
    assert len(last.asked) == len(mean.asked) == len(WORDS)
    with ActivationStore(tmp_path) as store:
        assert len(store) == len(WORDS)


def test_error_keeps_what_was_done_and_frees_the_rest(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="out of luck"):
        embed(tmp_path, failing := Model(fail_on=WORDS[-1]))
    model = Model()
    assert_array_equal(embed(tmp_path, model), states_of(WORDS, (0, 1), ("rs",)))
    asked = [text for text, *_ in failing.asked + model.asked]
    assert sorted(asked) == sorted(WORDS)


def test_threads_share_the_work(tmp_path: Path) -> None:
    models = [Model() for _ in range(4)]
    results: dict[int, NDArray[np.float32]] = {}
    threads = [
        threading.Thread(
            target=lambda n=n: results.__setitem__(n, embed(tmp_path, models[n]))
        )
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = states_of(WORDS, (0, 1), ("rs",))
    for n in range(4):
        assert_array_equal(results[n], expected)
    asked = [text for model in models for text, *_ in model.asked]
    assert sorted(asked) == sorted(WORDS)


def test_digests_tell_texts_apart_accents_too() -> None:
    texts = ["", "a", "b", "ab", "?", "\u00e9", "e\u0301"]
    assert len({digest_text(text) for text in texts}) == len(texts)


def test_repetition_is_noted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_texts(monkeypatch)
    assert not note_repetition(WORDS, "one model")
    assert not note_repetition(WORDS, "another model")
    assert not note_repetition([*WORDS[:3], "d", "e", "f"], "one model")
    assert note_repetition(WORDS, "one model")
    assert not note_repetition(WORDS, "one model")


def test_threads_forget_the_oldest_texts_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forget_texts(monkeypatch)
    monkeypatch.setattr(_embed, "_MOST_SEEN", 20)

    def note(number: int) -> bool:
        texts = [f"{number} {place}" for place in range(10)]
        return note_repetition(texts, "settings")

    before = sys.getswitchinterval()
    # Threads give way a hundred times as often as they do.
    sys.setswitchinterval(before / 100)
    try:
        with ThreadPoolExecutor(16) as threads:
            assert not any(threads.map(note, range(1000)))
    finally:
        sys.setswitchinterval(before)
    assert len(_embed._seen) == 20
