import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from numpy.typing import NDArray

from plug_sklearn.embedding.store._records import (
    RecordReader,
    decode,
    encode,
    make_layout,
    pack_record,
    read_layout,
    unpack_record,
)

SLOTS = ((0, 0), (3, 0), (3, 2))
LAYOUT = make_layout(SLOTS, 5, "float32")
STATES = np.arange(15, dtype=np.float32).reshape(3, 5)
KEY = b"key"
RECORD = pack_record(KEY, LAYOUT, [memoryview(row.tobytes()) for row in STATES])

floats = stn.arrays(np.float32, st.integers(1, 50), elements=st.floats(width=32))


def test_vectors_come_back_by_slot() -> None:
    vectors, layout = unpack_record(KEY, memoryview(RECORD))
    assert layout == LAYOUT
    assert vectors == {
        slot: row.tobytes() for slot, row in zip(SLOTS, STATES, strict=True)
    }


@pytest.mark.parametrize("n_layers", [1, 30, 80])
@pytest.mark.parametrize("n_parts", [1, 3])
def test_record_of_many_slots_is_as_large_as_its_vectors(
    n_layers: int, n_parts: int
) -> None:
    slots = tuple((layer, part) for layer in range(n_layers) for part in range(n_parts))
    layout = make_layout(slots, 576, "float32")
    assert layout.size < 1.02 * 4 * 576 * len(slots)


@given(st.integers(0, len(RECORD) - 1), st.integers(1, 255))
def test_no_changed_byte_gives_a_wrong_vector(place: int, flipped: int) -> None:
    damaged = bytearray(RECORD)
    damaged[place] ^= flipped
    vectors, _ = unpack_record(KEY, memoryview(damaged))
    right = {slot: row.tobytes() for slot, row in zip(SLOTS, STATES, strict=True)}
    assert vectors.items() <= right.items()
    # Each vector has two checksums, its own and that of all: one right one will do.
    spared = range(16 + 4 * len(SLOTS), LAYOUT.first)
    assert (vectors == right) == (place in spared)


def test_one_damaged_vector_spares_the_others() -> None:
    damaged = bytearray(RECORD)
    damaged[LAYOUT.first + LAYOUT.stride] ^= 1
    reader = RecordReader(SLOTS, hidden_size=5)
    out, missing = np.zeros((3, 5), np.float32), np.ones(3, dtype=bool)
    reader.read(KEY, memoryview(damaged), out, missing)
    assert missing.tolist() == [False, True, False]
    np.testing.assert_array_equal(out, [STATES[0], np.zeros(5), STATES[2]])


@pytest.mark.parametrize("slots", [SLOTS, SLOTS[:2], SLOTS[::-1], SLOTS[1:]])
def test_reader_reads_many_or_few_of_a_record(slots: tuple[tuple[int, int]]) -> None:
    reader = RecordReader(slots, hidden_size=5)
    out, missing = np.zeros((len(slots), 5), np.float32), np.ones(len(slots), bool)
    reader.read(KEY, memoryview(RECORD), out, missing)
    assert not missing.any()
    np.testing.assert_array_equal(out, [STATES[SLOTS.index(slot)] for slot in slots])


@given(st.integers(0, len(RECORD) - 1))
def test_cut_record_is_none(length: int) -> None:
    assert read_layout(memoryview(RECORD[:length])) is None


def test_record_under_another_key_is_not_right() -> None:
    assert unpack_record(b"other", memoryview(RECORD))[0] == {}


def test_reader_takes_the_slots_it_wants_in_their_order() -> None:
    reader = RecordReader([(3, 2), (7, 0), (0, 0)], hidden_size=5)
    out, missing = np.zeros((3, 5), np.float32), np.ones(3, dtype=bool)
    reader.read(KEY, memoryview(RECORD), out, missing)
    assert missing.tolist() == [False, True, False]
    np.testing.assert_array_equal(out, [STATES[2], np.zeros(5), STATES[0]])


def test_reader_leaves_what_is_not_missing() -> None:
    reader = RecordReader(SLOTS, hidden_size=5)
    out, missing = np.zeros((3, 5), np.float32), np.array([False, True, False])
    reader.read(KEY, memoryview(RECORD), out, missing)
    assert not missing.any()
    np.testing.assert_array_equal(out, [np.zeros(5), STATES[1], np.zeros(5)])


def test_reader_takes_no_vector_of_another_size() -> None:
    out, missing = np.zeros((3, 4), np.float32), np.ones(3, dtype=bool)
    RecordReader(SLOTS, hidden_size=4).read(KEY, memoryview(RECORD), out, missing)
    assert missing.all()


@given(floats)
def test_float32_is_kept_bit_by_bit(states: NDArray[np.float32]) -> None:
    kept = decode(encode(states, "float32"), "float32")
    assert kept.tobytes() == states.tobytes()


@given(floats, st.sampled_from([torch.float16, torch.bfloat16]))
def test_half_precision_rounds_as_torch_does(
    states: NDArray[np.float32], dtype: torch.dtype
) -> None:
    expected = torch.from_numpy(states).to(dtype).float()
    name = str(dtype).removeprefix("torch.")
    if torch.isinf(expected).sum() > np.isinf(states).sum():
        with pytest.raises(FloatingPointError, match=f"too large for {name}"):
            encode(states, name)
    else:
        encoded = encode(states, name)
        assert encoded.itemsize == 2
        np.testing.assert_array_equal(decode(encoded, name), expected.numpy())
