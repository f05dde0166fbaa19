"""One prompt's activations ↔ one checked record of bytes.

A record is a head, checksums, and a vector for each slot::

    head       magic (4 bytes), dtype (2), number of slots (2), hidden size (4), 0 (4);
               then for each slot its layer (2) and part (2)
    checksums  XXH3 of all vectors, then of each one, the low 4 bytes of each, seeded
               with that of the key and the head
    vectors    one after another, from a multiple of 16 bytes on

All numbers are little-endian. A slot is a layer and a part of it. LMDB gives a large
value whole 4 KiB pages, so that a vector a record would take up to twice its size; all
slots that are written together share a record.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

Slot = tuple[int, int]
Vectors = dict[Slot, bytes | memoryview]

#: The number of a part in a record.
PART_NUMBERS = {"rs": 0, "attn": 1, "mlp": 2}
MOST_LAYERS = 2**16

_MAGIC = b"ACTV"
_FIXED = struct.Struct("<4sHHI4x")
_ALIGNMENT = 16
#: What a record holds of each dtype, by the dtype's number in it. NumPy has no
#: bfloat16; its bits stand in an integer.
_STORED = ("<f4", "<f2", "<u2")
DTYPES = ("float32", "float16", "bfloat16")


def encode(states: NDArray[np.float32], dtype: str) -> NDArray[np.generic]:
    """Round states to the dtype that a store keeps.

    Raises
    ------
    FloatingPointError
        If a finite state is too large for it.
    """
    states = np.ascontiguousarray(states, dtype=np.float32)
    if dtype == "float32":
        return states
    if dtype == "bfloat16":
        rounded = torch.from_numpy(states).to(torch.bfloat16).view(torch.int16)
        encoded: NDArray[np.generic] = rounded.numpy().view(np.uint16)
    else:
        with np.errstate(over="ignore"):
            encoded = states.astype(np.float16)
    if np.isinf(decode(encoded, dtype)).sum() > np.isinf(states).sum():
        raise FloatingPointError(
            f"A state is too large for {dtype}: the largest is "
            f"{np.abs(states).max():.3g}. Use dtype='float32' in a new ActivationStore."
        )
    return encoded


def decode(encoded: NDArray[np.generic], dtype: str) -> NDArray[np.float32]:
    """Give states as float32 that a store keeps in another dtype."""
    if dtype != "bfloat16":
        return encoded.astype(np.float32, copy=False)
    return (encoded.astype(np.uint32) << 16).view(np.float32)


@dataclass(frozen=True)
class Layout:
    """Where a record keeps what.

    Attributes
    ----------
    head : bytes
        The record's first bytes, which say all of it.
    slots : tuple of (int, int)
        Layer and part number of each vector.
    hidden_size : int
        Units in a vector.
    dtype : str
        Their type.
    """

    head: bytes
    slots: tuple[Slot, ...]
    hidden_size: int
    dtype: str

    @cached_property
    def stored(self) -> np.dtype[np.generic]:
        """The type of the array in the record."""
        return np.dtype(_STORED[DTYPES.index(self.dtype)])

    @cached_property
    def stride(self) -> int:
        """Bytes in a vector."""
        return self.hidden_size * self.stored.itemsize

    @cached_property
    def first(self) -> int:
        """Where the first vector begins, in bytes."""
        end = len(self.head) + self.checksums.size
        return -(-end // _ALIGNMENT) * _ALIGNMENT

    @cached_property
    def checksums(self) -> struct.Struct:
        """How the checksums are written."""
        return struct.Struct(f"<{1 + len(self.slots)}I")

    @cached_property
    def size(self) -> int:
        """Bytes in the record."""
        return self.first + self.stride * len(self.slots)


@lru_cache(maxsize=64)
def make_layout(slots: tuple[Slot, ...], hidden_size: int, dtype: str) -> Layout:
    """Lay out a record of some slots."""
    head = _FIXED.pack(_MAGIC, DTYPES.index(dtype), len(slots), hidden_size)
    for slot in slots:
        head += struct.pack("<HH", *slot)
    return Layout(head, slots, hidden_size, dtype)


def read_layout(record: memoryview) -> Layout | None:
    """Read how a record is laid out; None if it is not one any more."""
    if len(record) < _FIXED.size:
        return None
    n_slots = int.from_bytes(record[6:8], "little")
    layout = _parse_head(bytes(record[: _FIXED.size + 4 * n_slots]))
    return layout if layout is not None and layout.size == len(record) else None


@lru_cache(maxsize=256)
def _parse_head(head: bytes) -> Layout | None:
    magic, dtype, n_slots, hidden_size = _FIXED.unpack_from(head)
    complete = len(head) == _FIXED.size + 4 * n_slots
    if magic != _MAGIC or dtype >= len(DTYPES) or not complete:
        return None
    slots = tuple(struct.iter_unpack("<HH", head[_FIXED.size :]))
    return Layout(head, slots, hidden_size, DTYPES[dtype])


def pack_record(
    key: bytes, layout: Layout, vectors: Sequence[bytes | memoryview]
) -> bytes:
    """Make a record.

    Parameters
    ----------
    key : bytes
        What the record is found by; a record under another key is not right.
    layout : Layout
        The slots.
    vectors : sequence of bytes or memoryview
        The bytes of each slot's vector.

    Returns
    -------
    bytes
        The record.
    """
    seed = xxh3_64_intdigest(key + layout.head)
    body = b"".join(vectors)
    checksums = [_sum(part, seed) for part in (body, *vectors)]
    beginning = layout.head + layout.checksums.pack(*checksums)
    return beginning.ljust(layout.first, b"\0") + body


def _sum(part: bytes | memoryview, seed: int) -> int:
    return xxh3_64_intdigest(part, seed) & 0xFFFFFFFF


def find_right(
    key: bytes, record: memoryview, layout: Layout, places: Sequence[int]
) -> list[int]:
    """Find which of some vectors of a record fit their checksums."""
    seed = xxh3_64_intdigest(key + layout.head)
    whole, *checksums = layout.checksums.unpack_from(record, len(layout.head))
    first, stride = layout.first, layout.stride
    # One sum over all is quicker than one for each of the most.
    most = 2 * len(places) > len(layout.slots)
    if most and _sum(record[first:], seed) == whole:
        return list(places)
    right = []
    for place in places:
        begin = first + place * stride
        if _sum(record[begin : begin + stride], seed) == checksums[place]:
            right.append(place)
    return right


def unpack_record(key: bytes, record: memoryview) -> tuple[Vectors, Layout | None]:
    """Copy what is right in a record.

    Returns
    -------
    vectors : dict
        The bytes of each right vector, by its slot.
    layout : Layout or None
        How the record is laid out; None if its head is wrong.
    """
    layout = read_layout(record)
    if layout is None:
        return {}, None
    places = find_right(key, record, layout, range(len(layout.slots)))
    beginnings = {place: layout.first + place * layout.stride for place in places}
    vectors: Vectors = {
        layout.slots[place]: bytes(record[begin : begin + layout.stride])
        for place, begin in beginnings.items()
    }
    return vectors, layout


class RecordReader:
    """Reads the same slots out of many records.

    Parameters
    ----------
    slots : sequence of (int, int)
        Layers and part numbers to read.
    hidden_size : int or None
        Units a vector must have; None takes any.
    """

    def __init__(self, slots: Sequence[Slot], hidden_size: int | None) -> None:
        self.hidden_size = hidden_size
        self._positions = {slot: position for position, slot in enumerate(slots)}
        self._every = list(range(len(slots)))
        # The records of one model come in few layouts.
        self._plans: dict[bytes, tuple[list[int], list[int]]] = {}

    def find(
        self, key: bytes, record: memoryview, missing: NDArray[np.bool_]
    ) -> tuple[Layout, list[int], list[int]] | None:
        """Find the missing slots that a record holds and that are right.

        Parameters
        ----------
        key : bytes
            What the record was found by.
        record : memoryview
            The record.
        missing : ndarray of shape (n_slots,), bool
            What to look for; what is found is no longer missing.

        Returns
        -------
        layout : Layout
            How the record is laid out.
        places, positions : list of int
            Which of its vectors were found, and for which of the slots; or None
            instead of all three, if the record holds nothing that is missing.
        """
        layout = read_layout(record)
        if layout is None or self.hidden_size not in (None, layout.hidden_size):
            return None
        places, positions = self._plan(layout)
        all_missing = missing.all()
        if not all_missing:
            wanted = missing[positions].tolist()
            places = [
                p for p, is_wanted in zip(places, wanted, strict=True) if is_wanted
            ]
        places = find_right(key, record, layout, places)
        if not places:
            return None
        if len(places) < len(positions):
            positions = [self._positions[layout.slots[place]] for place in places]
        if all_missing and len(places) == len(missing):
            missing.fill(False)
        else:
            missing[positions] = False
        return layout, places, positions

    def read(
        self,
        key: bytes,
        record: memoryview,
        out: NDArray[np.float32],
        missing: NDArray[np.bool_],
    ) -> None:
        """Copy the missing slots that a record holds.

        Parameters
        ----------
        key, record, missing
            As for ``find``.
        out : ndarray of shape (n_slots, hidden_size), float32
            Takes what is found.
        """
        found = self.find(key, record, missing)
        if found is None:
            return
        layout, places, positions = found
        vectors = np.frombuffer(record, layout.stored, offset=layout.first)
        vectors = vectors.reshape(len(layout.slots), layout.hidden_size)
        if places == self._every and positions == places:
            # All in order: one copy, without a list of where each goes.
            out[:] = decode(vectors[: len(places)], layout.dtype)
            return
        if len(places) < len(layout.slots):
            vectors = vectors[places]
        out[positions] = decode(vectors, layout.dtype)

    def _plan(self, layout: Layout) -> tuple[list[int], list[int]]:
        plan = self._plans.get(layout.head)
        if plan is None:
            places = [
                p for p, slot in enumerate(layout.slots) if slot in self._positions
            ]
            positions = [self._positions[layout.slots[place]] for place in places]
            plan = self._plans[layout.head] = (places, positions)
        return plan
