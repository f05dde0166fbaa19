"""The work split over workers: of this machine, and of a cluster that loses one."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import joblib
import numpy as np
import pytest
import torch
from distributed import Client, LocalCluster
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from plug_sklearn import HFEmbeddingTransformer
from plug_sklearn.embedding import ActivationStore
from plug_sklearn.embedding._embed import (
    compute_in_jobs,
    cut_prompts,
    find_worker_device,
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
