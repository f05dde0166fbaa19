import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from _in_process import forget_texts
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from plug_sklearn.embedding import ActivationStore, _embed
from plug_sklearn.embedding._embed import EmbeddingJob, digest_text, note_repetition
from plug_sklearn.embedding.passes import Request

PARTS = ("rs", "attn", "mlp")
TEXTS = [f"{word} {n}" for word in ("a", "b", "c") for n in range(7)]
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
    texts: Sequence[str] = TEXTS,
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
    expected = states_of(TEXTS, (0, 1), ("rs",))
    for _ in range(2):
        assert_array_equal(embed(tmp_path, model), expected)
    assert sorted(text for text, *_ in model.asked) == sorted(TEXTS)


def test_fewer_layers_and_parts_compute_nothing(tmp_path: Path) -> None:
    embed(tmp_path, Model(), layers=(0, 1, 2), parts=PARTS)
    model = Model()
    found = embed(tmp_path, model, layers=(2, 0), parts=("mlp",))
    assert_array_equal(found, states_of(TEXTS, (2, 0), ("mlp",)))
    assert not model.asked


def test_more_layers_compute_only_what_is_missing(tmp_path: Path) -> None:
    embed(tmp_path, Model(), TEXTS[:5], layers=(0,))
    model = Model()
    found = embed(tmp_path, model, layers=(0, 1))
    assert_array_equal(found, states_of(TEXTS, (0, 1), ("rs",)))
    asked = {text: layers for text, layers, _ in model.asked}
    assert asked == {text: (1,) if text in TEXTS[:5] else (0, 1) for text in TEXTS}


def test_other_settings_share_nothing(tmp_path: Path) -> None:
    embed(tmp_path, Model())
    model = Model(settings="other")
    embed(tmp_path, model)
    assert len(model.asked) == len(TEXTS)


def test_another_pooling_is_computed_and_keeps_what_is_there(tmp_path: Path) -> None:
    last, mean = Model(), Model(pooling="mean")
    for _ in range(2):
        embed(tmp_path, last)
        embed(tmp_path, mean)
    assert len(last.asked) == len(mean.asked) == len(TEXTS)
    with ActivationStore(tmp_path) as store:
        assert len(store) == len(TEXTS)


def test_error_keeps_what_was_done_and_frees_the_rest(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="out of luck"):
        embed(tmp_path, failing := Model(fail_on=TEXTS[-1]))
    model = Model()
    assert_array_equal(embed(tmp_path, model), states_of(TEXTS, (0, 1), ("rs",)))
    asked = [text for text, *_ in failing.asked + model.asked]
    assert sorted(asked) == sorted(TEXTS)


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
    expected = states_of(TEXTS, (0, 1), ("rs",))
    for n in range(4):
        assert_array_equal(results[n], expected)
    asked = [text for model in models for text, *_ in model.asked]
    assert sorted(asked) == sorted(TEXTS)


def test_digests_tell_texts_apart_accents_too() -> None:
    texts = ["", "a", "b", "ab", "?", "\u00e9", "e\u0301"]
    assert len({digest_text(text) for text in texts}) == len(texts)


def test_repetition_is_noted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_texts(monkeypatch)
    assert not note_repetition(TEXTS, "one model")
    assert not note_repetition(TEXTS, "another model")
    assert not note_repetition([*TEXTS[:3], "d", "e", "f"], "one model")
    assert note_repetition(TEXTS, "one model")
    assert not note_repetition(TEXTS, "one model")


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
