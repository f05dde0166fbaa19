"""Several poolings in one pass, and token activations."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from _in_process import record_computed
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline

from plug_sklearn import HFEmbeddingTransformer, LayerAggregator
from plug_sklearn.embedding import ActivationStore
from plug_sklearn.embedding.passes import ForwardPass
from plug_sklearn.embedding.prompts import PromptReader

PARTS = ("rs", "attn", "mlp")
TEXTS = ["Gold is a metal.", "Lima is in Peru, is it?", "Gold is blue.", "Au"]
TEXTS = [*TEXTS, TEXTS[0], "<|im_end|> Gold"]
POOL: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "mean": lambda tokens: tokens.mean(axis=0),
    "last": lambda tokens: tokens[-1],
    "max": lambda tokens: tokens.max(axis=0),
    "first": lambda tokens: tokens[0],
}


def embed(model: str, X: Any = TEXTS, **parameters: Any) -> NDArray[Any]:  # noqa: ANN401
    embedder = HFEmbeddingTransformer(model, device="cpu", **parameters)
    return embedder.fit_transform(X)


class TokenMean(TransformerMixin, BaseEstimator):
    """Token features → their mean, as a plain loop."""

    def fit(self, X: NDArray[np.object_], y: object = None) -> "TokenMean":
        self.n_seen_ = len(X)
        return self

    def transform(self, X: NDArray[np.object_]) -> NDArray[np.float32]:
        return np.stack([tokens.mean(axis=0) for tokens in X])


@settings(max_examples=25)
@given(
    texts=st.lists(
        st.text(alphabet="Gold is, <|im_end|>.\nPeru", min_size=1, max_size=20),
        min_size=1,
        max_size=6,
    ),
    poolings=st.lists(st.sampled_from(list(POOL)), min_size=1, unique=True),
    parameters=st.sampled_from(
        [
            {},
            # Several batches, one after the other in the same memory.
            {"batch_tokens": 4},
            {"token_filter": "non_text", "pool_over": "prompt"},
            {"token_filter": "special"},
            {"prompt_template": "Is it {text}, or not?"},
            {"prompt_template": "Is it {text}, or not?", "pool_over": "prompt"},
            {"chat_template": True, "special_tokens": "literal"},
            {"chat_template": True, "roles": ("user",), "eos_token": "<|im_end|>"},
        ]
    ),
)
@pytest.mark.filterwarnings("ignore:.*no token left")
@pytest.mark.filterwarnings("ignore:.*has read most of these texts")
def test_every_pooling_is_what_a_loop_makes_of_the_tokens(
    llama: str, texts: list[str], poolings: list[str], parameters: dict[str, Any]
) -> None:
    texts = [f"a{text}" for text in texts]
    options = {"parts": PARTS, "layers": [2, 0], **parameters}
    tokens = embed(llama, texts, pooling=None, **options)
    found = embed(llama, texts, pooling=poolings, **options)
    assert found.shape == (len(texts), 2, len(PARTS) * len(poolings), 16)
    for pooled, states in zip(found, tokens, strict=True):
        expected = np.stack([POOL[name](states) for name in poolings], axis=2)
        assert_allclose(pooled, expected.reshape(pooled.shape), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model", ["llama", "bert", "t5"])
def test_poolings_together_are_those_of_separate_passes(
    model: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(model)
    apart = [embed(folder, pooling=name, parts=PARTS) for name in POOL]
    together = embed(folder, pooling=tuple(POOL), parts=PARTS)
    expected = np.stack(apart, axis=3).reshape(together.shape)
    assert_allclose(together, expected, rtol=1e-5, atol=1e-6)


def test_one_pooling_in_a_sequence_is_that_pooling(llama: str) -> None:
    embedder = HFEmbeddingTransformer(llama, device="cpu", pooling=["mean"])
    assert_array_equal(embedder.fit_transform(TEXTS), embed(llama, pooling="mean"))
    assert embedder.parts_ == ("rs",)


def test_axis_2_is_named_part_by_part(llama: str) -> None:
    embedder = HFEmbeddingTransformer(
        llama, device="cpu", parts=("attn", "rs"), pooling=("last", "mean"), layers=[1]
    ).fit(TEXTS)
    assert embedder.parts_ == ("attn_last", "attn_mean", "rs_last", "rs_mean")
    names = embedder.get_feature_names_out()
    assert names[[0, 16, 63]].tolist() == [
        "L1_attn_last_0",
        "L1_attn_mean_0",
        "L1_rs_mean_15",
    ]
    aggregator = LayerAggregator(parts=["rs_mean"], part_names=embedder.parts_)
    found = aggregator.fit_transform(embedder.transform(TEXTS))
    assert_allclose(
        found, embed(llama, pooling="mean", layers=[1])[:, 0, 0], rtol=1e-5, atol=1e-6
    )


def count_passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of prompts of each pass from now on."""
    passes: list[int] = []
    run = ForwardPass._read

    def count(self: Any, batch: Any, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        passes.append(len(batch.offsets))
        return run(self, batch, *args, **options)

    monkeypatch.setattr(ForwardPass, "_read", count)
    return passes


def test_any_number_of_poolings_takes_the_passes_of_one(
    llama: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed(llama)
    passes = count_passes(monkeypatch)
    embed(llama, pooling="mean")
    n_passes = len(passes)
    for pooling in (tuple(POOL), None):
        passes.clear()
        embed(llama, pooling=pooling)
        assert len(passes) == n_passes


def test_token_activations_are_one_array_a_text(llama: str) -> None:
    embedder = HFEmbeddingTransformer(
        llama, device="cpu", pooling=None, parts=PARTS, layers=[0, 2]
    )
    found = embedder.fit_transform(TEXTS)
    tokens = embedder.selected_tokens(TEXTS)
    assert found.shape == (len(TEXTS),)
    assert found.dtype == object
    for states, shown in zip(found, tokens, strict=True):
        assert states.shape == (len(shown), 2, 3, 16)
        assert states.dtype == np.float32
        assert states.flags.c_contiguous
    assert found[0] is found[4]


@pytest.mark.parametrize("n_jobs", [None, 2])
@pytest.mark.parametrize("batch_tokens", [1, 16, 2048])
def test_tokens_do_not_depend_on_batches_and_workers(
    llama: str, n_jobs: int | None, batch_tokens: int
) -> None:
    found = embed(llama, pooling=None, n_jobs=n_jobs, batch_tokens=batch_tokens)
    for states, text in zip(found, TEXTS, strict=True):
        (alone,) = embed(llama, [text], pooling=None)
        assert_allclose(states, alone, rtol=1e-4, atol=1e-5)


def test_tokens_go_through_scikit_learn(llama: str) -> None:
    texts = [f"{n} is {'even' if n % 2 == 0 else 'odd'}." for n in range(24)]
    y = np.arange(24) % 2
    pipeline = make_pipeline(
        HFEmbeddingTransformer(llama, device="cpu", pooling=None, layers=[0, 1]),
        LayerAggregator(),
        TokenMean(),
        LogisticRegression(max_iter=500),
    )
    assert cross_val_score(pipeline, texts, y, cv=3).mean() > 0.9
    grid = {"layeraggregator__layers": [[0], [1]]}
    search = GridSearchCV(pipeline, grid, cv=2, n_jobs=2).fit(texts, y)
    again = pickle.loads(pickle.dumps(search.best_estimator_))
    assert_array_equal(again.predict(texts), search.predict(texts))
    activations = pipeline[0].fit_transform(texts)
    copied = joblib.load(_dump(activations))
    assert all(map(np.array_equal, copied, activations))
    assert clone(pipeline).get_params()["hfembeddingtransformer__pooling"] is None


def _dump(value: object) -> Any:  # noqa: ANN401 - a stream
    import io

    stream = io.BytesIO()
    joblib.dump(value, stream)
    stream.seek(0)
    return stream


@pytest.mark.parametrize("pooling", ["last", ("mean", "first"), None])
def test_half_precision_activations_are_rounded_once(
    llama: str,
    pooling: Any,  # noqa: ANN401
) -> None:
    whole = embed(llama, pooling=pooling)
    half = embed(llama, pooling=pooling, activation_dtype="float16")
    for states, expected in zip(half, whole, strict=True):
        assert states.dtype == np.float16
        assert_array_equal(states, expected.astype(np.float16))


def test_state_too_large_for_half_precision_is_an_error(
    llama: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ForwardPass.run
    monkeypatch.setattr(ForwardPass, "run", lambda *args: run(*args) * np.float32(1e6))
    message = r"'activation_dtype'.*of at least [1-6] texts.*float16, at positions \[\d"
    with pytest.raises(FloatingPointError, match=message):
        embed(llama, activation_dtype="float16")


@pytest.mark.parametrize("pooling", ["last", None])
def test_stored_state_too_large_for_half_precision_names_its_row(
    llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pooling: str | None
) -> None:
    run = ForwardPass.run

    def run_and_enlarge(*args: Any) -> Any:  # noqa: ANN401 - arrays, or a list of them
        states = run(*args)
        first = states[0] * np.float32(1e6)
        if isinstance(states, list):
            return [first, *states[1:]]
        states[0] = first
        return states

    options: dict[str, Any] = {"store": tmp_path, "pooling": pooling}
    with monkeypatch.context() as patched:
        patched.setattr(ForwardPass, "run", run_and_enlarge)
        states = embed(llama, **options, batch_tokens=10**6)
    rows = [row for row, item in enumerate(states) if np.abs(item).max() > 65504]
    assert 0 < len(rows) < len(states)
    first_rows = [row for row in rows if TEXTS.index(TEXTS[row]) == row]
    message = rf"at positions \[{', '.join(map(str, first_rows))}\]"
    with pytest.raises(FloatingPointError, match=message):
        embed(llama, **options, activation_dtype="float16")


def test_texts_whose_tokens_are_kept_are_tokenized_once(
    llama: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    tokenize = PromptReader.read

    def spy(reader: PromptReader, texts: Any, **options: Any) -> Any:  # noqa: ANN401
        read.extend(texts)
        return tokenize(reader, texts, **options)

    monkeypatch.setattr(PromptReader, "read", spy)
    long = "Gold, " * 20
    with pytest.warns(UserWarning, match="1 of 6 distinct texts are longer than 30"):
        embed(llama, [*TEXTS, long], pooling=None, max_length=30)
    assert sorted(read) == sorted({*TEXTS, long})


@pytest.mark.parametrize("pooling", ["last", None])
def test_activations_that_do_not_fit_are_refused_before_a_pass(
    llama: str, monkeypatch: pytest.MonkeyPatch, pooling: str | None
) -> None:
    embed(llama)
    passes = count_passes(monkeypatch)
    tokens = sum(
        map(
            len,
            HFEmbeddingTransformer(llama, pooling=None)
            .fit(TEXTS)
            .selected_tokens(list(dict.fromkeys(TEXTS))),
        )
    )
    n_bytes = (len(TEXTS) if pooling else tokens) * 3 * 16 * 4
    monkeypatch.setattr(
        "plug_sklearn.embedding._rows.find_free_memory", lambda: n_bytes - 1
    )
    with pytest.raises(MemoryError, match=r"of 6 texts take.*float16"):
        embed(llama, pooling=pooling)
    assert not passes
    monkeypatch.setattr(
        "plug_sklearn.embedding._rows.find_free_memory", lambda: n_bytes
    )
    embed(llama, pooling=pooling)
    assert passes


@pytest.mark.parametrize(
    ("pooling", "message"),
    [
        ("median", r"among \('last', .*Got 'median'"),
        ((), r"among .*Got \(\)"),
        (["last", "last"], r"sequence of distinct poolings.*Got \['last', 'last'\]"),
        (["last", 3], r"among .*Got \['last', 3\]"),
        (3, r"among .*Got 3"),
    ],
)
def test_poolings_are_refused_by_name(
    llama: str, pooling: object, message: str
) -> None:
    embedder = HFEmbeddingTransformer(llama, pooling=pooling)
    with pytest.raises(ValueError, match=rf"'pooling' parameter.*{message}"):
        embedder.fit(TEXTS)


def test_selected_tokens_are_those_of_all_poolings(llama: str) -> None:
    embedder = HFEmbeddingTransformer(llama, device="cpu", pooling=("first", "last"))
    everything = HFEmbeddingTransformer(llama, pooling=None).fit(TEXTS)
    (all_tokens,) = everything.selected_tokens(TEXTS[:1])
    (tokens,) = embedder.fit(TEXTS).selected_tokens(TEXTS[:1])
    assert tokens == [all_tokens[0], all_tokens[-1]]
    embedder = HFEmbeddingTransformer(llama, pooling=("last", "mean")).fit(TEXTS)
    assert embedder.selected_tokens(TEXTS[:1]) == [all_tokens]


def test_subset_of_stored_poolings_takes_no_pass(
    llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = {"store": tmp_path, "parts": PARTS}
    expected = embed(llama, pooling=("last", "mean", "max"), **stored)
    passes = count_passes(monkeypatch)
    found = embed(llama, pooling=("max", "last"), **stored)
    by_pooling = expected.reshape(len(TEXTS), 3, 3, 3, 16)
    assert_array_equal(found, by_pooling[:, :, :, [2, 0]].reshape(len(TEXTS), 3, 6, 16))
    assert_array_equal(embed(llama, pooling="mean", **stored), by_pooling[:, :, :, 1])
    assert not passes


def test_added_pooling_keeps_what_is_stored(
    llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = record_computed(monkeypatch)
    expected = embed(llama, pooling=("last", "mean"))
    computed.clear()
    embed(llama, pooling="last", store=tmp_path)
    found = embed(llama, pooling=("last", "mean"), store=tmp_path)
    assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert {one.poolings for _, one in computed} == {("last",), ("mean",)}
    assert len(computed) == 2 * len(set(TEXTS))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("activation_dtype", ["float32", "float16"])
def test_stored_tokens_come_back_without_a_pass(
    llama: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dtype: str,
    activation_dtype: str,
) -> None:
    ActivationStore(tmp_path, dtype=dtype).close()
    parameters = {"pooling": None, "parts": PARTS, "layers": [2, 0]}
    parameters["activation_dtype"] = activation_dtype
    expected = embed(llama, **parameters)
    stored = embed(llama, store=tmp_path, **parameters)
    passes = count_passes(monkeypatch)
    again = embed(llama, store=tmp_path, **parameters)
    fewer = embed(
        llama, store=tmp_path, **{**parameters, "layers": 0, "parts": ("mlp",)}
    )
    assert not passes
    for found, kept, one, whole in zip(again, stored, fewer, expected, strict=True):
        assert_array_equal(found, kept)
        assert found.dtype == kept.dtype == whole.dtype
        assert found.shape == whole.shape
        assert_allclose(found, whole, rtol=1e-2, atol=1e-2)
        assert_array_equal(one, found[:, 1:, 2:])
    assert again[0] is again[4]


def test_more_layers_of_stored_tokens_compute_what_is_missing(
    llama: str, tmp_path: Path
) -> None:
    embed(llama, TEXTS[:2], pooling=None, layers=[1], store=tmp_path)
    found = embed(llama, pooling=None, store=tmp_path, n_jobs=2)
    for states, expected in zip(found, embed(llama, pooling=None), strict=True):
        assert_allclose(states, expected, rtol=1e-4, atol=1e-5)


def test_tokens_and_pooled_activations_share_a_store(
    llama: str, tmp_path: Path
) -> None:
    for pooling in ("last", None, "last", None):
        found = embed(llama, pooling=pooling, store=tmp_path)
        for states, expected in zip(found, embed(llama, pooling=pooling), strict=True):
            assert_allclose(states, expected, rtol=1e-5, atol=1e-5)
    with ActivationStore(tmp_path) as store:
        assert len(store) == len(set(TEXTS))


def test_damaged_tokens_are_computed_anew(llama: str, tmp_path: Path) -> None:
    expected = embed(llama, pooling=None, store=tmp_path)
    (file,) = tmp_path.glob("vectors-*.bin")
    content = bytearray(file.read_bytes())
    content[100] ^= 255
    file.write_bytes(content)
    with pytest.warns(UserWarning, match="1 damaged records"):
        found = embed(llama, pooling=None, store=tmp_path)
    for states, whole in zip(found, expected, strict=True):
        assert_allclose(states, whole, rtol=1e-5, atol=1e-5)
