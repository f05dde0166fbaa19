"""A fitted pipeline in other processes: forked, spawned, and joblib's."""

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakValueDictionary

import joblib
import numpy as np
import pytest
import torch
from _in_process import forget_texts, list_models
from sklearn.pipeline import Pipeline, make_pipeline

from plug_sklearn import (
    HFEmbeddingTransformer,
    LayerAggregator,
    PlugMLPClassifier,
    _forks,
)
from plug_sklearn._forks import make_lock
from plug_sklearn.embedding import ActivationStore

NAMES = ("gold", "iron", "neon", "argon", "zinc", "tin", "lead", "helium")
TEXTS = [f"{name} is a {kind}" for name in NAMES for kind in ("metal", "gas")]
LABELS = [name in NAMES[:4] for name in NAMES for _ in range(2)]

pytestmark = [
    # Python 3.12 says what this package then makes good.
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
    pytest.mark.usefixtures("unhinted"),
]

forks = threading.Event()
# Handlers that were registered last run first.
os.register_at_fork(before=forks.set)


@pytest.fixture
def unhinted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what this test reads from being a repetition in another."""
    forget_texts(monkeypatch)


@pytest.fixture(scope="module")
def pipe(llama: str) -> Pipeline:
    return make_pipeline(
        HFEmbeddingTransformer(llama, device="cpu", token_filter="non_text"),
        LayerAggregator(),
        PlugMLPClassifier(max_epochs=4, random_state=0, device="cpu"),
    ).fit(TEXTS, LABELS)


def ask_child(question: Callable[[], object], seconds: float = 30) -> object:
    """Get the answer of a child that is forked now; fail where it hangs."""
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(
        target=lambda: there.send(question())
    )
    child.start()
    try:
        assert here.poll(seconds), "the child hangs"
        return here.recv()
    finally:
        child.kill()
        child.join()


@contextmanager
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def multiply() -> float:
    return float((torch.ones(600, 600) @ torch.ones(600, 600)).sum())


def test_fork_waits_for_a_lock_so_that_the_child_finds_it_free() -> None:
    lock = make_lock()
    held = threading.Event()
    done: list[str] = []

    def hold() -> None:
        with lock:
            held.set()
            assert forks.wait(timeout=30)
            done.append("whole")

    forks.clear()
    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(timeout=30)
    assert ask_child(lambda: (lock.acquire(timeout=5), done)) == (True, ["whole"])
    holder.join()
    assert lock.acquire(timeout=5)
    lock.release()


def test_fork_waits_for_a_lock_made_while_it_waits() -> None:
    first, held = make_lock(), threading.Event()
    made: list[threading.RLock] = []
    freed: list[bool] = []

    def hold() -> None:
        with first:
            held.set()
            assert forks.wait(timeout=30)
            made.append(make_lock())
            made[0].acquire()
        freed.append(True)
        made[0].release()

    forks.clear()
    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(timeout=30)
    answer = ask_child(lambda: (made[0].acquire(timeout=5), freed))
    assert answer == (True, [True])
    holder.join()


def test_thread_may_fork_while_it_holds_a_lock() -> None:
    lock = make_lock()
    with lock:
        assert ask_child(lambda: lock.acquire(timeout=5)) is True


def test_child_does_not_wait_for_threads_that_it_lacks() -> None:
    with two_threads():
        expected = multiply()
        assert ask_child(lambda: (torch.get_num_threads(), multiply())) == (1, expected)
        assert torch.get_num_threads() == 2


def test_child_of_a_process_that_ran_the_model_predicts_the_same(
    pipe: Pipeline,
) -> None:
    with two_threads():
        expected = pipe.predict_proba(TEXTS)
        found = ask_child(lambda: pipe.predict_proba(TEXTS))
    # Fewer threads add up in another order.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_children_forked_while_threads_predict_do_so_too(pipe: Pipeline) -> None:
    expected = pipe.predict_proba(TEXTS)
    ends = threading.Event()

    def keep_asking() -> int:
        n_asked = 0
        while not ends.is_set():
            pipe.predict_proba(TEXTS[n_asked % 8 :])
            n_asked += 1
        return n_asked

    def answer() -> tuple[np.ndarray, int]:
        hooks = sum(
            len(module._forward_hooks) + len(module._forward_pre_hooks)
            for loaded in list_models().values()
            for module in loaded.model.modules()
        )
        return pipe.predict_proba(TEXTS), hooks

    with ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(keep_asking) for _ in range(4)]
        try:
            answers = [ask_child(answer) for _ in range(20)]
        finally:
            ends.set()
        assert all(asked.result(timeout=30) for asked in asking)
    for found, n_hooks in answers:
        np.testing.assert_array_equal(found, expected)
        assert n_hooks == 0


def test_forked_child_fits_too(pipe: Pipeline) -> None:
    features = pipe[:-1].transform(TEXTS)
    with two_threads():
        expected = pipe[-1].predict_proba(features)
        found = ask_child(
            lambda: pipe[-1].fit(features, LABELS).predict_proba(features)
        )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_spawned_process_predicts_the_same(pipe: Pipeline) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        found = pool.submit(pipe.predict_proba, TEXTS).result(timeout=120)
    np.testing.assert_allclose(found, pipe.predict_proba(TEXTS), rtol=0, atol=1e-6)


@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "threading"])
def test_joblib_s_workers_predict_the_same(pipe: Pipeline, backend: str) -> None:
    expected = pipe.predict_proba(TEXTS)
    with joblib.parallel_config(backend, n_jobs=2):
        found = joblib.Parallel()(
            joblib.delayed(pipe.predict_proba)(TEXTS[half])
            for half in (slice(8), slice(8, 16))
        )
    np.testing.assert_allclose(np.concatenate(found), expected, rtol=0, atol=1e-5)


def test_forked_pool_shares_a_store(llama: str, tmp_path: Path) -> None:
    embedder = HFEmbeddingTransformer(llama, device="cpu", store=tmp_path).fit(TEXTS)
    expected = embedder.transform(TEXTS[:8])
    found = ask_child(lambda: embedder.transform(TEXTS))
    np.testing.assert_array_equal(found[:8], expected)
    np.testing.assert_array_equal(found, embedder.transform(TEXTS))


def test_children_forked_while_threads_use_a_store_do_so_too(
    llama: str, tmp_path: Path
) -> None:
    embedder = HFEmbeddingTransformer(llama, device="cpu", store=tmp_path).fit(TEXTS)
    expected = embedder.transform(TEXTS)
    ends = threading.Event()

    def keep_asking(thread: int) -> int:
        n_asked = 0
        while not ends.is_set():
            embedder.transform([*TEXTS, f"{thread} {n_asked}"])
            n_asked += 1
        return n_asked

    def answer() -> tuple[np.ndarray, int]:
        new = embedder.transform([f"of the child {n}" for n in range(3)])
        return embedder.transform(TEXTS), len(new)

    with ThreadPoolExecutor(3) as threads:
        asking = [threads.submit(keep_asking, thread) for thread in range(3)]
        try:
            answers = [ask_child(answer) for _ in range(8)]
        finally:
            ends.set()
        n_asked = sum(asked.result(timeout=30) for asked in asking)
    for found, n_new in answers:
        np.testing.assert_array_equal(found, expected)
        assert n_new == 3
    # Each text of the threads and of the children was written once, and stays.
    with ActivationStore(tmp_path) as store:
        assert len(store) == len(TEXTS) + n_asked + 3


class HandedOver:
    """A lock whose release ends when another thread has it."""

    def __init__(self) -> None:
        self.lock, self.is_taken = threading.RLock(), threading.Event()

    def __enter__(self) -> None:
        self.lock.acquire()

    def __exit__(self, *error: object) -> None:
        self.lock.release()
        assert self.is_taken.wait(timeout=30)


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads that give way whenever they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_two_threads_that_fork_at_once_free_their_own_locks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handed, resumed = HandedOver(), threading.Event()
    monkeypatch.setattr(_forks, "_locks", WeakValueDictionary({0: handed}))

    def fork_next() -> None:
        _forks._prepare_fork()
        handed.is_taken.set()
        assert resumed.wait(timeout=30)
        _forks._resume()

    # What Python runs around a fork, and no fork.
    _forks._prepare_fork()
    with ThreadPoolExecutor(1) as threads:
        done = threads.submit(fork_next)
        try:
            _forks._resume()
        finally:
            resumed.set()
        done.result(timeout=30)
    assert handed.lock.acquire(blocking=False)


@pytest.mark.usefixtures("hasty_threads")
def test_locks_may_be_made_while_another_thread_forks() -> None:
    with ThreadPoolExecutor(2) as threads:
        made = [
            threads.submit(lambda: [make_lock() for _ in range(1000)]) for _ in range(2)
        ]
        for _ in range(20):
            _forks._prepare_fork()
            _forks._resume()
        assert all(len(locks.result(timeout=30)) == 1000 for locks in made)
