import json
import pickle
import shutil
import sqlite3
import threading
from contextlib import closing
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from _stored import (
    HIDDEN_SIZE,
    PARTS,
    TABLES,
    VECTORS,
    digest,
    digests,
    flip_bytes,
    holds_right,
    make_states,
    read,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from plug_sklearn.embedding import ActivationStore, StoredModel, StoreError


@pytest.fixture
def store(tmp_path: Path) -> ActivationStore:
    return ActivationStore(tmp_path / "store")


def some(strategy: st.SearchStrategy[object], most: int) -> st.SearchStrategy[list]:
    return st.lists(strategy, min_size=1, max_size=most, unique=True)


requests = st.tuples(
    st.sampled_from(["write", "read", "reopen", "compact"]),
    some(st.integers(0, 5), 4),
    some(st.integers(0, 3), 3),
    some(st.sampled_from(PARTS), 3),
)


@settings(max_examples=60)
@given(st.lists(requests, max_size=8))
def test_store_reads_what_a_dict_of_slots_would(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple]
) -> None:
    path = tmp_path_factory.mktemp("store")
    held: dict[tuple[int, int, str], float] = {}
    store = ActivationStore(path)
    key = store.register("model")
    for turn, (action, numbers, layers, parts) in enumerate(history):
        if action == "reopen":
            store.close()
            store = ActivationStore(path)
        elif action == "compact":
            store.compact()
        elif action == "write":
            shape = (len(numbers), len(layers), len(parts), HIDDEN_SIZE)
            states = np.full(shape, turn, dtype=np.float32)
            store.write(key, digests(numbers), layers, parts, states)
            for slot in ((n, la, p) for n in numbers for la in layers for p in parts):
                held.setdefault(slot, turn)
        out, missing = read(store, key, numbers, layers, parts)
        expected = [
            [[held.get((n, la, p), np.nan) for p in parts] for la in layers]
            for n in numbers
        ]
        np.testing.assert_array_equal(missing, np.isnan(expected))
        np.testing.assert_array_equal(out[..., 0], expected)
        np.testing.assert_array_equal(out[..., -1], expected)
    assert len(store) == len({number for number, _, _ in held})
    store.close()


def test_rows_can_be_anywhere_in_the_array_and_repeat(store: ActivationStore) -> None:
    key = store.register("model")
    store.write(key, digests([1, 2]), [0], ["rs"], make_states([1, 2], [0]))
    out = np.zeros((5, 1, 1, HIDDEN_SIZE), np.float32)
    missing = store.read_into(key, digests([2, 1, 2]), [0], ["rs"], out, [4, 0, 2])
    assert not missing.any()
    np.testing.assert_array_equal(out[[4, 0, 2]], make_states([2, 1, 2], [0]))
    assert not out[[1, 3]].any()


def test_equal_digests_in_one_write_keep_the_first(store: ActivationStore) -> None:
    key = store.register("model")
    store.write(key, digests([1, 1]), [0], ["rs"], make_states([5, 6], [0]))
    np.testing.assert_array_equal(read(store, key, [1], [0])[0], make_states([5], [0]))
    assert len(store) == 1


def test_models_and_settings_never_meet(store: ActivationStore) -> None:
    keys = [
        store.register("a"),
        store.register("b"),
        store.register("a", pooling="last"),
        store.register("a", pooling="mean"),
        store.register("a", pooling="last", max_length=None),
    ]
    assert len(set(keys)) == len(keys)
    store.write(keys[0], digests([1]), [0, 1], ["rs"], make_states([1]))
    assert [read(store, key, [1])[1].any() for key in keys] == [False] + 4 * [True]


def test_known_settings_are_registered_while_another_process_writes(
    tmp_path: Path,
) -> None:
    with ActivationStore(tmp_path) as store:
        key = store.register("model", x=1)
        with closing(sqlite3.connect(tmp_path / TABLES)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert store.register("model", x=1) == key


def test_settings_key_knows_no_order_and_no_process(tmp_path: Path) -> None:
    first = ActivationStore(tmp_path / "a").register("m", x=1, y=[2, {"z": None}])
    second = ActivationStore(tmp_path / "b").register("m", y=(2, {"z": None}), x=1)
    assert first == second
    text = b'{"model":"m","settings":{"x":1,"y":[2,{"z":null}]}}'
    assert first == blake2b(text, digest_size=16).digest()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_what_write_returned_and_half_as_large(
    tmp_path: Path, dtype: str
) -> None:
    numbers, shape = range(100), (100, 4, 1, 1000)
    states = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    sizes = {}
    for name in ("float32", dtype):
        store = ActivationStore(tmp_path / name, dtype=name)
        key = store.register("model")
        rounded = store.write(key, digests(numbers), range(4), ["rs"], states)
        out, missing = read(store, key, numbers, range(4), hidden_size=1000)
        assert not missing.any()
        np.testing.assert_array_equal(out, rounded)
        np.testing.assert_allclose(out, states, rtol=0 if name == "float32" else 2**-8)
        sizes[name] = store.n_bytes
        store.close()
    assert sizes[dtype] < 0.6 * sizes["float32"]


def test_dtype_is_the_store_s_own_for_all_who_open_it(tmp_path: Path) -> None:
    ActivationStore(tmp_path, dtype="float16").close()
    with ActivationStore(tmp_path) as store:
        assert store.dtype == "float16"
    with pytest.raises(ValueError, match=r"own, 'float16'\. Got 'float32'"):
        ActivationStore(tmp_path, dtype="float32")


@pytest.mark.parametrize("n_parts", [1, 3])
@pytest.mark.parametrize("hidden_size", [576, 2304])
def test_size_on_disk_is_that_of_the_arrays(
    tmp_path: Path, n_parts: int, hidden_size: int
) -> None:
    numbers, parts = range(60), PARTS[:n_parts]
    states = make_states(numbers, range(30), parts, hidden_size)
    with ActivationStore(tmp_path) as store:
        key = store.register("model")
        store.write(key, digests(numbers), range(30), parts, states)
        assert store.n_bytes < 1.05 * states.nbytes


def test_contents_lists_models_settings_prompts_and_bytes(
    store: ActivationStore,
) -> None:
    small, large = store.register("b"), store.register("a", pooling="mean")
    store.register("c")
    store.write(small, digests([1]), [0], ["rs"], make_states([1], [0]))
    store.write(large, digests([1, 2]), [0], ["rs"], make_states([1, 2], [0]))
    store.write(large, digests([2]), [1], ["rs"], make_states([2], [1]))
    vector = 4 * HIDDEN_SIZE
    assert store.contents() == [
        StoredModel("a", {"pooling": "mean"}, n_prompts=2, n_bytes=3 * vector),
        StoredModel("b", {}, n_prompts=1, n_bytes=vector),
    ]
    assert len(store) == 3


def test_deleted_model_is_gone_and_the_others_stay(store: ActivationStore) -> None:
    gone = [store.register("a", pooling=pooling) for pooling in ("last", "mean")]
    kept = store.register("b")
    for key in (*gone, kept):
        store.write(key, digests(range(20)), [0, 1], ["rs"], make_states(range(20)))
    assert store.delete("a") == 40
    assert [stored.model for stored in store.contents()] == ["b"]
    assert all(read(store, key, range(20))[1].all() for key in gone)
    assert holds_right(store, kept, range(20))


def test_compacted_store_is_small_and_holds_the_same(store: ActivationStore) -> None:
    gone, kept = store.register("a"), store.register("b")
    numbers = range(400)
    many = make_states(numbers, range(30), hidden_size=576)
    store.write(gone, digests(numbers), range(30), ["rs"], many)
    for layer in range(2):
        states = make_states(numbers, [layer])
        store.write(kept, digests(numbers), [layer], ["rs"], states)
    store.delete("a")
    store.compact()
    assert store.n_bytes < 0.01 * many.nbytes
    assert sorted(path.name for path in store.path.iterdir()) == [
        TABLES,
        "claims.lock",
        "vectors-1.bin",
    ]
    assert holds_right(store, kept, numbers)
    assert store.contents()[0].n_bytes == 400 * 2 * 4 * HIDDEN_SIZE
    store.write(gone, digests([1]), [0, 1], ["rs"], make_states([1]))
    assert holds_right(store, gone, [1])


def test_damaged_record_is_missing_until_it_is_written_again(
    store: ActivationStore,
) -> None:
    key = store.register("model")
    numbers = range(10)
    store.write(key, digests(numbers), [0, 1], ["rs"], make_states(numbers))
    flip_bytes(store.path / VECTORS, make_states([7])[0, 1].tobytes())
    with pytest.warns(UserWarning, match=f"1 damaged records .*{store.path}"):
        _, missing = read(store, key, numbers)
    assert np.argwhere(missing).tolist() == [[7, 0, 0], [7, 1, 0]]
    mine = store.claim(key, digests(numbers), [0, 1], ["rs"])
    assert np.flatnonzero(mine).tolist() == [7]
    store.write(key, digests([7]), [0, 1], ["rs"], make_states([7]))
    assert holds_right(store, key, numbers)
    store.compact()
    assert holds_right(store, key, numbers)
    assert store.contents()[0].n_bytes == 10 * 2 * 4 * HIDDEN_SIZE


def test_records_of_a_damaged_layout_are_missing(store: ActivationStore) -> None:
    key = store.register("model")
    store.write(key, digests([1]), [0, 1], ["rs"], make_states([1]))
    flip_bytes(store.path / TABLES, b'"hidden_size"', 0x01)
    with pytest.warns(UserWarning, match="1 damaged records"):
        assert read(store, key, [1])[1].all()
    store.write(key, digests([1]), [0, 1], ["rs"], make_states([1]))
    assert holds_right(store, key, [1])


def test_compaction_leaves_out_what_is_damaged(store: ActivationStore) -> None:
    key = store.register("model")
    store.write(key, digests([1, 2]), [0, 1], ["rs"], make_states([1, 2]))
    flip_bytes(store.path / VECTORS, make_states([1])[0, 0].tobytes())
    store.compact()
    assert read(store, key, [1, 2])[1].ravel().tolist() == [True, True, False, False]
    assert len(store) == 1


@pytest.mark.parametrize("pooling", ["first", "mean", "max"])
def test_poolings_stand_side_by_side(store: ActivationStore, pooling: str) -> None:
    key = store.register("model")
    states = make_states([1, 2], [0, 1], PARTS)
    store.write(key, digests([1, 2]), [0, 1], PARTS, states)
    out = np.full((2, 1, 4, HIDDEN_SIZE), np.nan, np.float32)
    asked = (key, digests([1, 2]), [1], ["mlp", "rs"], out)
    both = {"poolings": [pooling, "last"]}
    missing = store.read_into(*asked, **both)
    # Axis 2 is part by part: what is held keeps its place beside what is not.
    assert missing[0].tolist() == [[True, False, True, False]]
    np.testing.assert_array_equal(out[:, 0, 1::2], states[:, 1, [2, 0]])
    assert np.isnan(out[:, :, ::2]).all()
    assert store.claim(*asked[:-1], poolings=[pooling]).all()
    other = -make_states([1, 2], [1], ["mlp", "rs"])
    store.write(*asked[:-1], other, poolings=[pooling])
    assert not store.read_into(*asked, **both).any()
    np.testing.assert_array_equal(out[:, :, ::2], other)
    np.testing.assert_array_equal(out[:, 0, 1::2], states[:, 1, [2, 0]])
    assert not store.claim(*asked[:-1], **both).any()
    assert len(store) == 2


@settings(max_examples=40)
@given(
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=6),
    written=some(st.integers(0, 2), 3),
    asked=some(st.integers(0, 2), 3),
    order=st.lists(st.integers(0, 5), min_size=1, max_size=8),
    kept=st.sampled_from(["float32", "float16"]),
    dtype=st.sampled_from(["float32", "float16"]),
)
def test_tokens_come_back_as_arrays_that_can_be_written_to(
    tmp_path_factory: pytest.TempPathFactory,
    counts: list[int],
    written: list[int],
    asked: list[int],
    order: list[int],
    kept: str,
    dtype: str,
) -> None:
    """In any order, some of them twice, some never written."""
    tokens = [
        make_states(range(n, n + count), (0, 1, 2)) for n, count in enumerate(counts)
    ]
    path = tmp_path_factory.mktemp("tokens") / "store"
    with ActivationStore(path, dtype=kept) as store:
        key = store.register("model")
        states = [item[:, written] for item in tokens]
        numbers = digests(range(len(tokens)))
        store.write(key, numbers, written, ["rs"], states, poolings=None)
        out = np.empty(len(order), dtype=object)
        missing = store.read_into(
            key, digests(order), asked, ["rs"], out, poolings=None, dtype=dtype
        )
    held = [layer in written for layer in asked]
    for row, number in enumerate(order):
        is_held = number < len(tokens)
        assert missing[row, :, 0].tolist() == [not (is_held and one) for one in held]
        if is_held and any(held):
            assert out[row].dtype == dtype
            expected = tokens[number][:, asked].astype(kept).astype(dtype)
            np.testing.assert_array_equal(out[row][:, held], expected[:, held])
    # Each is the caller's own, whatever memory they share.
    given_back = [item for item in out if item is not None]
    for number, item in enumerate(given_back):
        item[:] = number
    for number, item in enumerate(given_back):
        assert (item == number).all()


def test_one_damaged_record_of_neighbours_is_missing(store: ActivationStore) -> None:
    key = store.register("model")
    states = [make_states([number] * 3, [0]) for number in range(5)]
    store.write(key, digests(range(5)), [0], ["rs"], states, poolings=None)
    flip_bytes(store.path / VECTORS, states[2].tobytes())
    out = np.empty(5, dtype=object)
    with pytest.warns(UserWarning, match="1 damaged records"):
        missing = store.read_into(
            key, digests(range(5)), [0], ["rs"], out, poolings=None
        )
    assert np.flatnonzero(missing).tolist() == [2]
    assert out[2] is None
    for number in (0, 1, 3, 4):
        np.testing.assert_array_equal(out[number], states[number])


def test_many_prompts_are_read_in_any_order(store: ActivationStore) -> None:
    # More than one query finds.
    key, numbers = store.register("model"), np.arange(10_100)
    states = numbers.astype(np.float32).reshape(-1, 1, 1, 1)
    store.write(key, digests(numbers), [0], ["rs"], states)
    order = np.random.default_rng(0).permutation(len(numbers) + 1)
    out = np.full((len(order), 1, 1, 1), -1, dtype=np.float32)
    missing = store.read_into(key, digests(order), [0], ["rs"], out)
    expected = np.where(order < len(numbers), order, -1)
    np.testing.assert_array_equal(out.ravel(), expected)
    np.testing.assert_array_equal(missing.ravel(), expected < 0)


def test_unknown_pooling_is_refused(store: ActivationStore) -> None:
    key = store.register("model")
    for wrong in ([], ["last", "last"], ["least"]):
        with pytest.raises(ValueError, match=r"'poolings' parameter .* among \('last"):
            store.claim(key, digests([1]), [0], ["rs"], poolings=wrong)


def test_nothing_in_the_store_is_a_pickle(store: ActivationStore) -> None:
    key = store.register("model", pooling="last")
    store.write(key, digests([1]), [0, 1], ["rs"], make_states([1]))
    store.close()
    data = b"".join(path.read_bytes() for path in store.path.iterdir())
    text = b'{"model":"model","settings":{"pooling":"last"}}'
    assert text in data
    assert json.loads(text)["model"] == "model"
    assert not any(b"\x80%c\x95" % protocol in data for protocol in range(6))


def test_pickled_store_opens_the_same_folder(
    store: ActivationStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = store.register("model")
    store.write(key, digests([1]), [0, 1], ["rs"], make_states([1]))
    pickled = pickle.dumps(store)
    assert len(pickled) < 500
    store.close()
    monkeypatch.chdir(tmp_path)
    copy = pickle.loads(pickled)
    assert holds_right(copy, key, [1])
    copy.close()


def test_one_of_two_open_stores_can_be_closed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "store")
    first = ActivationStore(tmp_path / "store")
    key = first.register("model")
    with ActivationStore(tmp_path / "link") as second:
        second.write(key, digests([1]), [0, 1], ["rs"], make_states([1]))
    assert holds_right(first, key, [1])
    with pytest.raises(StoreError, match="was closed"):
        len(second)


def test_threads_share_a_store(store: ActivationStore) -> None:
    key = store.register("model")

    def work(first: int) -> None:
        with ActivationStore(store.path) as mine:
            for number in range(first, 100, 4):
                states = make_states([number])
                mine.write(key, digests([number]), [0, 1], ["rs"], states)
                holds_right(mine, key, range(0, 100, 7))

    threads = [threading.Thread(target=work, args=[first]) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert holds_right(store, key, range(100))


def test_store_deleted_by_another_is_made_again(store: ActivationStore) -> None:
    key = store.register("model")
    store.write(key, digests([1]), [0, 1], ["rs"], make_states([1]))
    shutil.rmtree(store.path)
    assert len(store) == 0
    assert key == store.register("model")
    store.write(key, digests([2]), [0, 1], ["rs"], make_states([2]))
    assert holds_right(ActivationStore(store.path), key, [2])


def test_readonly_store_reads_and_does_not_write(store: ActivationStore) -> None:
    key = store.register("model")
    store.write(key, digests([1]), [0, 1], ["rs"], make_states([1]))
    store.close()
    with ActivationStore(store.path, readonly=True) as reader:
        assert holds_right(reader, reader.register("model"), [1])
        assert reader.register("other") != key
        for change in (
            lambda: reader.write(key, digests([2]), [0], ["rs"], make_states([2], [0])),
            lambda: reader.claim(key, digests([2]), [0], ["rs"]),
            lambda: reader.delete("model"),
            reader.compact,
        ):
            with pytest.raises(StoreError, match="was opened with readonly=True"):
                change()
        with ActivationStore(store.path) as writer:
            writer.write(key, digests([2]), [0, 1], ["rs"], make_states([2]))
        assert holds_right(reader, key, [1, 2])


def test_nothing_to_read_write_or_claim_is_no_error(store: ActivationStore) -> None:
    key = store.register("model")
    empty = np.empty((0, 1, 1, HIDDEN_SIZE), np.float32)
    assert store.write(key, [], [0], ["rs"], empty).shape == empty.shape
    assert store.read_into(key, [], [0], ["rs"], empty).shape == (0, 1, 1)
    assert store.claim(key, [], [0], ["rs"]).shape == (0,)
    store.wait(key, [])
    store.release(key, [])
    assert len(store) == 0
    assert store.contents() == []
    assert store.delete("model") == 0
    store.compact()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"layers": []}, r"'layers' .* distinct numbers in \[0, 65536\). Got \[\]"),
        ({"layers": [1, 1]}, r"'layers' .* Got \[1, 1\] instead"),
        ({"layers": [-1, 0]}, r"'layers' .* Got \[-1, 0\] instead"),
        ({"parts": ["mpl"]}, r"'parts' .* among \('rs', .*Got \['mpl'\] instead"),
        ({"parts": []}, r"'parts' .* Got \[\] instead"),
        ({"digests": [b"short"]}, r"'digests' .* 16 bytes. Got b'short' instead"),
        ({"digests": ["0123456789abcdef"]}, r"'digests' .* Got '0123456789abcdef'"),
        ({"digests": bytes(16)}, r"'digests' .* 16 bytes. Got 0 instead"),
        ({"digests": [None]}, r"'digests' .* 16 bytes. Got None instead"),
        ({"settings": b""}, r"'settings' .* 16 bytes. Got b'' instead"),
        ({"settings": None}, r"'settings' .* 16 bytes. Got None instead"),
        ({"settings": bytes(16)}, r"'settings' .* a key that register gave"),
        (
            {"states": make_states([1])[0]},
            r"'states' .* \(1, 2, 1\) .* Got \(2, 1, 8\)",
        ),
        ({"states": make_states([1, 2])}, r"'states' .* Got \(2, 2, 1, 8\) instead"),
    ],
)
def test_wrong_argument_is_named(
    store: ActivationStore, changed: dict[str, object], message: str
) -> None:
    arguments = {
        "settings": store.register("model"),
        "digests": [digest(1)],
        "layers": [0, 1],
        "parts": ["rs"],
        "states": make_states([1]),
    }
    with pytest.raises(ValueError, match=message):
        store.write(**arguments | changed)
    assert len(store) == 0


def test_array_that_cannot_be_filled_is_refused(store: ActivationStore) -> None:
    key = store.register("model")
    out = np.empty((2, 2, 1, HIDDEN_SIZE), np.float32)
    for wrong in (out[0], out[:, :1], out.astype(np.float64), out[::2].T.T[:, ::-1]):
        with pytest.raises(ValueError, match="'out' parameter"):
            store.read_into(key, digests([1]), [0, 1], ["rs"], wrong)
    for rows in ([2], [0, 1]):
        with pytest.raises(ValueError, match="'out' parameter"):
            store.read_into(key, digests([1]), [0, 1], ["rs"], out, rows)


def test_another_hidden_size_is_refused_and_destroys_nothing(
    store: ActivationStore,
) -> None:
    key = store.register("model")
    store.write(key, digests([1]), [0, 1], ["rs"], make_states([1]))
    wrong = make_states([1], hidden_size=9)
    with pytest.raises(ValueError, match=r"holds for these settings, 8\. Got 9"):
        store.write(key, digests([1]), [0, 1], ["rs"], wrong)
    assert holds_right(store, key, [1])


def test_setting_that_json_cannot_hold_is_refused(store: ActivationStore) -> None:
    for setting in (object(), float("nan"), b"bytes"):
        with pytest.raises(TypeError, match=r"'settings' parameter .* JSON"):
            store.register("model", setting=setting)


def test_unknown_dtype_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'dtype' .* Got 'int8' instead"):
        ActivationStore(tmp_path / "store", dtype="int8")
    assert not (tmp_path / "store").exists()
