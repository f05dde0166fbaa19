"""The records of a store: read, added to, listed, deleted and merged, by prompt.

A prompt here is the key of its settings and its own digest. Its records are numbered,
one for each time that it was written with something new.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeAlias

import lmdb
import numpy as np
from numpy.typing import NDArray

from plug_sklearn.embedding.store._mapping import Transaction
from plug_sklearn.embedding.store._records import (
    Layout,
    RecordReader,
    Slot,
    Vectors,
    make_layout,
    pack_record,
    unpack_record,
)

Cursor: TypeAlias = "lmdb.Cursor[memoryview]"

#: Bytes of the key of settings, and of the digest of a prompt.
KEY_SIZE = 16

_PREFIX = b"record:"
_PROMPT_END = len(_PREFIX) + 2 * KEY_SIZE


def iterate_records(
    cursor: Cursor, prompt: bytes
) -> Iterator[tuple[bytes, memoryview]]:
    """Give the key and the bytes of each record of a prompt, or of all its settings'.

    Parameters
    ----------
    cursor : Cursor
        Where to read; adding or deleting ends the iteration's right to go on.
    prompt : bytes
        The beginning of the keys: settings, or settings and digest, or nothing.

    Yields
    ------
    key : bytes
        The record's key.
    record : memoryview
        The record.
    """
    beginning = _PREFIX + prompt
    found = cursor.set_range(beginning)
    while found:
        key = bytes(cursor.key())
        if not key.startswith(beginning):
            return
        yield key, cursor.value()
        found = cursor.next()


def read_rows(
    transaction: Transaction,
    prompts: Sequence[bytes],
    slots: Sequence[Slot],
    out: NDArray[np.float32],
    rows: Sequence[int],
) -> NDArray[np.bool_]:
    """Read prompts into rows of an array.

    Parameters
    ----------
    transaction : Transaction
        Where to read.
    prompts : sequence of bytes
        The prompts.
    slots : sequence of (int, int)
        What to read of each.
    out : ndarray of shape (n_rows, n_slots, hidden_size), float32
        Takes what is held.
    rows : sequence of int
        The row of each prompt.

    Returns
    -------
    ndarray of shape (n, n_slots), bool
        What is not held, or not right any more.
    """
    missing = np.ones((len(prompts), len(slots)), dtype=bool)
    reader = RecordReader(slots, out.shape[2])
    cursor = transaction.cursor()
    for place in sorted(range(len(prompts)), key=prompts.__getitem__):
        row, wanted = out[rows[place]], missing[place]
        for key, record in iterate_records(cursor, prompts[place]):
            reader.read(key, record, row, wanted)
            if not wanted.any():
                break
    return missing


def make_holding_test(slots: Sequence[Slot]) -> Callable[[Transaction, bytes], bool]:
    """Make a function that tells whether all of some slots of a prompt are held."""
    reader = RecordReader(slots, hidden_size=None)

    def is_held(transaction: Transaction, prompt: bytes) -> bool:
        missing = np.ones(len(slots), dtype=bool)
        for key, record in iterate_records(transaction.cursor(), prompt):
            reader.find(key, record, missing)
        return not missing.any()

    return is_held


def add_record(
    transaction: Transaction, prompt: bytes, layout: Layout, vectors: memoryview
) -> None:
    """Add what is not held of a prompt, or not right.

    Parameters
    ----------
    transaction : Transaction
        Where to write.
    prompt : bytes
        Whose activations these are.
    layout : Layout
        How a record of all of them is laid out.
    vectors : memoryview
        The bytes of all vectors, in the layout's order.

    Raises
    ------
    ValueError
        If the prompt is held with another hidden size.
    """
    stride = layout.stride
    new: Vectors = {
        slot: vectors[place * stride : (place + 1) * stride]
        for place, slot in enumerate(layout.slots)
    }
    held: set[Slot] = set()
    used: set[int] = set()
    for key, record in iterate_records(transaction.cursor(), prompt):
        right, found = unpack_record(key, record)
        if right and found is not None and found.hidden_size != layout.hidden_size:
            raise ValueError(
                "The 'states' parameter of ActivationStore.write must have as many "
                f"units as the store holds of these settings, {found.hidden_size}. "
                f"Got {layout.hidden_size} instead."
            )
        held.update(right)
        used.add(int.from_bytes(key[_PROMPT_END:]))
    # A damaged record stays until the store is compacted: to delete what the file no
    # longer tells the true size of could free pages of others.
    added = {slot: vector for slot, vector in new.items() if slot not in held}
    if added:
        number = min(set(range(len(used) + 1)) - used)
        transaction.put(*make_record(prompt, added, layout, number))


def make_record(
    prompt: bytes, vectors: Vectors, like: Layout, number: int = 0
) -> tuple[bytes, bytes]:
    """Make a record of vectors, and its key, with the dtype and size of another."""
    layout = make_layout(tuple(vectors), like.hidden_size, like.dtype)
    key = _PREFIX + prompt + number.to_bytes(2)
    return key, pack_record(key, layout, list(vectors.values()))


@dataclass
class Extent:
    """How much a store holds of one group of settings.

    Attributes
    ----------
    n_prompts : int
        Distinct prompts.
    n_bytes : int
        Bytes of their records.
    """

    n_prompts: int = 0
    n_bytes: int = 0


def measure_extents(transaction: Transaction) -> dict[bytes, Extent]:
    """Measure what is held, by key of settings."""
    extents: dict[bytes, Extent] = {}
    last = b""
    for key, record in iterate_records(transaction.cursor(), b""):
        prompt = key[len(_PREFIX) : _PROMPT_END]
        extent = extents.setdefault(prompt[:KEY_SIZE], Extent())
        extent.n_prompts += prompt != last
        extent.n_bytes += len(record)
        last = prompt
    return extents


def delete_some(transaction: Transaction, settings: bytes, at_most: int) -> int:
    """Delete records of settings; gives how many, 0 if none are left."""
    beginning = _PREFIX + settings
    cursor = transaction.cursor()
    n_deleted = 0
    found = cursor.set_range(beginning)
    while found and n_deleted < at_most:
        if not bytes(cursor.key()).startswith(beginning):
            break
        n_deleted += 1
        # The cursor is then on the next record.
        found = cursor.delete() and bool(cursor.key())
    return n_deleted


def merge_records(
    transaction: Transaction,
) -> Iterator[tuple[bytes, bytes]]:
    """Give all entries of a store in order, with one whole record a prompt."""
    cursor = transaction.cursor()
    entries = ((bytes(key), value) for key, value in cursor)
    for beginning, group in groupby(entries, lambda entry: _cut_number(entry[0])):
        if not beginning.startswith(_PREFIX):
            yield from ((key, bytes(value)) for key, value in group)
            continue
        vectors: Vectors = {}
        like = None
        for key, record in group:
            right, layout = unpack_record(key, record)
            vectors = {**right, **vectors}
            like = layout if right else like
        if like is not None:
            yield make_record(beginning[len(_PREFIX) :], vectors, like)


def _cut_number(key: bytes) -> bytes:
    return key[:_PROMPT_END] if key.startswith(_PREFIX) else key
