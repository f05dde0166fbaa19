"""Stores are exported to safetensors files, and imported from them."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from _stored import (
    HIDDEN_SIZE,
    VECTORS,
    digest,
    digests,
    flip_bytes,
    holds_right,
    make_states,
    read,
)
from numpy.testing import assert_array_equal
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from plug_sklearn import HFEmbeddingTransformer, LayerAggregator
from plug_sklearn.embedding import ActivationStore, StoreError, release_models
from plug_sklearn.embedding.store import _exchange


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """An export of two models; one has some prompts with more layers."""
    with ActivationStore(tmp_path / "store") as store:
        for model, numbers in (("a", [1, 2, 3]), ("b", [7])):
            key = store.register(model, max_length=5)
            store.write(key, digests(numbers), [0, 1], ["rs"], make_states(numbers))
        key = store.register("a", max_length=5)
        more = make_states([2], layers=(4,), parts=("attn",))
        store.write(key, digests([2]), [4], ["attn"], more)
        store.export(tmp_path / "export")
    return tmp_path / "export"


def test_what_was_exported_is_held_after_the_import(
    exported: Path, tmp_path: Path
) -> None:
    with ActivationStore(tmp_path / "other") as other:
        assert other.import_(exported) == 4
        assert [(one.model, one.settings) for one in other.contents()] == [
            ("a", {"max_length": 5}),
            ("b", {"max_length": 5}),
        ]
        key = other.register("a", max_length=5)
        assert holds_right(other, key, [1, 2, 3])
        assert holds_right(other, other.register("b", max_length=5), [7])
        out, missing = read(other, key, [2], layers=(4,), parts=("attn",))
        assert not missing.any()
        assert_array_equal(out, make_states([2], layers=(4,), parts=("attn",)))


def test_files_are_plain_safetensors_with_an_index(exported: Path) -> None:
    index = json.loads((exported / "index.json").read_text())
    assert [one["model"] for one in index["models"]] == ["a", "b"]
    found = {}
    for shard in index["shards"]:
        tensors = safetensors.torch.load_file(exported / shard["file"])
        n_slots = len(shard["slots"])
        vectors = tensors["vectors"].reshape(-1, n_slots, HIDDEN_SIZE).numpy()
        for row, states in zip(tensors["digests"].numpy(), vectors, strict=True):
            found[index["models"][shard["model"]]["model"], row.tobytes(), n_slots] = (
                states
            )
    assert_array_equal(found["a", digest(3), 2], make_states([3])[0, :, 0])
    assert len(found) == 5


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_tokens_and_half_precision_come_back_bit_by_bit(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each shard holds one or two prompts.
    monkeypatch.setattr(_exchange, "_SHARD_SIZE", 150)
    rng = np.random.default_rng(0)
    states = [
        rng.normal(size=(n, 2, 1, HIDDEN_SIZE)).astype(np.float32) for n in (3, 1, 9, 2)
    ]
    asked: dict[str, Any] = {"layers": [0, 1], "parts": ["rs"], "poolings": None}
    with (
        ActivationStore(tmp_path / "one", dtype=dtype) as one,
        ActivationStore(tmp_path / "two", dtype=dtype) as two,
    ):
        key = one.register("a")
        kept = one.write(key, digests(range(4)), states=states, **asked)
        index = json.loads(one.export(tmp_path / "export").read_text())
        assert len(index["shards"]) > 1
        two.import_(tmp_path / "export" / "index.json")
        out = np.empty(4, dtype=object)
        missing = two.read_into(key, digests(range(4)), out=out, **asked)
    assert not missing.any()
    for found, expected in zip(out, kept, strict=True):
        assert_array_equal(found, expected)
    first = safetensors.torch.load_file(tmp_path / "export" / "shard-00000.safetensors")
    assert first["vectors"].dtype == getattr(torch, dtype)


def test_stores_of_another_dtype_round(exported: Path, tmp_path: Path) -> None:
    with ActivationStore(tmp_path / "half", dtype="float16") as half:
        half.import_(exported)
        out, missing = read(half, half.register("a", max_length=5), [1, 3])
    assert not missing.any()
    expected = make_states([1, 3]).astype(np.float16).astype(np.float32)
    assert_array_equal(out, expected)


def test_one_model_can_be_chosen(tmp_path: Path, exported: Path) -> None:
    with ActivationStore(tmp_path / "store") as store:
        index = store.export(tmp_path / "of b", model="b")
        found = json.loads(index.read_text())
        assert [one["model"] for one in found["models"]] == ["b"]
        with pytest.raises(ValueError, match=r"one of \['a', 'b'\].* Got 'c' instead"):
            store.export(tmp_path / "of c", model="c")
        with pytest.raises(FileExistsError, match="without an export"):
            store.export(exported)


def test_an_empty_store_says_so(tmp_path: Path) -> None:
    with (
        ActivationStore(tmp_path / "store") as store,
        pytest.raises(ValueError, match="holds nothing to export"),
    ):
        store.export(tmp_path / "export")


def test_what_is_held_is_kept_and_damage_is_left_out(tmp_path: Path) -> None:
    with ActivationStore(tmp_path / "store") as store:
        key = store.register("a")
        store.write(key, digests([1, 2]), [0, 1], ["rs"], make_states([1, 2]))
    first = make_states([1])[0].tobytes()
    flip_bytes(tmp_path / "store" / VECTORS, first)
    with (
        ActivationStore(tmp_path / "store") as store,
        ActivationStore(tmp_path / "other") as other,
    ):
        with pytest.warns(UserWarning, match="1 damaged records .* not exported"):
            store.export(tmp_path / "export")
        other.register("a")
        mine = make_states([2]) + 1
        other.write(key, digests([2]), [0, 1], ["rs"], mine)
        assert other.import_(tmp_path / "export") == 1
        out, missing = read(other, key, [1, 2])
    assert missing[0].all()
    assert_array_equal(out[1], mine[0])


def test_a_colleague_trains_a_probe_without_the_weights(
    llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, y = [f"{word} is here." for word in "abcdefgh"], [0, 1] * 4
    embedder = HFEmbeddingTransformer(llama, device="cpu", store=tmp_path / "store")
    expected = embedder.fit_transform(texts)
    with ActivationStore(tmp_path / "store") as store:
        store.export(tmp_path / "export")
    with ActivationStore(tmp_path / "theirs") as theirs:
        assert theirs.import_(tmp_path / "export") == 8
    release_models()
    monkeypatch.setattr(
        "transformers.AutoModel.from_pretrained", lambda *_, **__: pytest.fail("loaded")
    )
    probe = make_pipeline(
        embedder.set_params(store=tmp_path / "theirs"),
        LayerAggregator(),
        LogisticRegression(),
    )
    probe.fit(texts, y)
    assert_array_equal(probe[0].transform(texts), expected)


def change_index(folder: Path, **changes: object) -> None:
    path = folder / "index.json"
    found = json.loads(path.read_text())
    found["shards"][0].update(changes)
    path.write_text(json.dumps(found))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file": "../shard-00000.safetensors"}, "is not an index of exported"),
        ({"sha256": "0" * 64}, "not what was exported: its checksum differs"),
        ({"model": 2}, "a model that the index does not list"),
        ({"dtype": "float16"}, "does not hold the tensors"),
        ({"dtype": "object"}, "is not an index of exported"),
        ({"hidden_size": 7}, "of other sizes"),
        ({"n_prompts": 9}, "does not hold the tensors"),
        ({"slots": []}, "is not an index of exported"),
        ({"slots": [[0, "os", "last"]]}, "is not an index of exported"),
        ({"more": 1}, "is not an index of exported"),
    ],
)
def test_an_index_that_was_changed_is_refused(
    changes: dict[str, object], message: str, exported: Path, tmp_path: Path
) -> None:
    change_index(exported, **changes)
    with (
        ActivationStore(tmp_path / "other") as other,
        pytest.raises(StoreError, match=message),
    ):
        other.import_(exported)


def test_sizes_whose_sum_overflows_are_refused(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"layers": [0], "parts": ["rs"], "poolings": None}
    with ActivationStore(tmp_path / "one") as one:
        key = one.register("a")
        tokens = [np.ones((2, 1, 1, HIDDEN_SIZE), np.float32)] * 5
        one.write(key, digests(range(5)), states=tokens, **asked)
        one.export(tmp_path / "export")
    shard = tmp_path / "export" / "shard-00000.safetensors"
    tensors = safetensors.torch.load_file(shard)
    total = tensors["vectors"].nbytes
    # In 64 bits, their sum is that of the vectors.
    tensors["n_bytes"] = torch.tensor([2**62] * 4 + [total])
    safetensors.torch.save_file(tensors, shard)
    change_index(tmp_path / "export", sha256=sha256(shard.read_bytes()).hexdigest())
    with (
        ActivationStore(tmp_path / "two") as two,
        pytest.raises(StoreError, match="of other sizes"),
    ):
        two.import_(tmp_path / "export")


def test_missing_files_and_changed_bytes_are_refused(
    exported: Path, tmp_path: Path
) -> None:
    shard = exported / "shard-00000.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with ActivationStore(tmp_path / "other") as other:
        with pytest.raises(StoreError, match="checksum differs"):
            other.import_(exported)
        shard.unlink()
        with pytest.raises(FileNotFoundError):
            other.import_(exported)
        with pytest.raises(FileNotFoundError, match=r"no index\.json in '.*nowhere'"):
            other.import_(tmp_path / "nowhere")
    with (
        ActivationStore(tmp_path / "other", readonly=True) as readonly,
        pytest.raises(StoreError, match="readonly"),
    ):
        readonly.import_(exported)


@pytest.mark.parametrize("name", ["export", "import_"])
def test_paths_that_are_none_are_refused_by_name(exported: Path, name: str) -> None:
    with (
        ActivationStore(exported.parent / "store") as store,
        pytest.raises(TypeError, match=f"'path' parameter of ActivationStore.{name}"),
    ):
        getattr(store, name)(None)
