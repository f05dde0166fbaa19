"""Records: the vectors of one prompt that were written together, with a checksum.

Vectors stand one after another in a file, each as little-endian numbers. The layout
that a record refers to says which slots they are of, their size and their dtype. The
checksum is over the settings, the prompt, the layout and the vectors: a record that was
changed, or that stands where it does not belong, does not fit it.
"""

import json
import math
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from plug_sklearn.embedding.store._vectors import STORED, VectorFile, decode

#: A layer, a part of it, and how the tokens were pooled.
Slot = tuple[int, str, str | None]

#: Start, size, number of the layout and checksum of a record.
_Row = list[Any]
#: Prompts that one query finds.
_LOOKED_UP = 500
#: Numbers in a block of memory that the tokens of several texts share.
_BLOCK_SIZE = 2**21
#: Which vectors of a record are wanted, where they go, and whether these are all slots
#: that are asked for, in order, at the record's beginning.
Plan = tuple[list[int], list[int], bool]

#: SQLite's integers have a sign.
_CHECKSUM_MASK = 2**63 - 1


class Layout:
    """What a record holds: for each slot, a vector of ``hidden_size`` numbers.

    Where the pooling of the slots is None, each has a vector for every token.
    """

    def __init__(self, dtype: str, hidden_size: int, slots: tuple[Slot, ...]) -> None:
        self.dtype = dtype
        self.hidden_size = hidden_size
        self.slots = slots
        described = {"dtype": dtype, "hidden_size": hidden_size, "slots": slots}
        self.description = json.dumps(described).encode()
        self._stored = np.dtype(STORED[dtype])
        self._size = self._stored.itemsize * hidden_size * len(slots)
        self._seed = xxh3_64_intdigest(self.description)
        self._is_pooled = all(pooling is not None for _, _, pooling in slots)

    def sum_up(self, prompt: bytes, vectors: memoryview) -> int:
        """Compute the checksum of a record."""
        seed = xxh3_64_intdigest(prompt, self._seed)
        return xxh3_64_intdigest(vectors, seed) & _CHECKSUM_MASK

    def is_size(self, n_bytes: int) -> bool:
        """Tell whether a record of this layout can have so many bytes."""
        if self._is_pooled:
            return n_bytes == self._size
        return n_bytes > 0 and n_bytes % self._size == 0

    def unpack(self, vectors: memoryview) -> NDArray[np.generic]:
        """View a record as an array of shape (n_slots, hidden_size).

        Of shape (n_slots, n_tokens, hidden_size) where every token was kept.
        """
        flat = np.frombuffer(vectors, self._stored)
        if self._is_pooled:
            return flat.reshape(len(self.slots), self.hidden_size)
        return flat.reshape(len(self.slots), -1, self.hidden_size)


def _parse_layout(description: bytes) -> Layout | None:
    """Read a layout; None if it is damaged."""
    try:
        found: dict[str, Any] = json.loads(description)
        slots = tuple((layer, part, pooling) for layer, part, pooling in found["slots"])
        layout = Layout(found["dtype"], found["hidden_size"], slots)
    except (ValueError, TypeError, KeyError):
        return None
    return layout if layout.description == description else None


class Records:
    """The records of one model and its settings, within one transaction.

    Parameters
    ----------
    connection : Connection
        What says where they are.
    vectors : VectorFile
        What holds their vectors.
    settings : bytes
        Key of the settings.

    Attributes
    ----------
    n_damaged : int
        Damaged records found so far.
    """

    def __init__(
        self, connection: sqlite3.Connection, vectors: VectorFile, settings: bytes
    ) -> None:
        self.n_damaged = 0
        self._connection = connection
        self._vectors = vectors
        self._settings = settings
        row = connection.execute("SELECT id FROM settings WHERE key = ?", (settings,))
        self._number: int | None = next(row, (None,))[0]
        self._layouts = {
            number: _parse_layout(description)
            for number, description in connection.execute("SELECT * FROM layouts")
        }

    @property
    def are_known(self) -> bool:
        """Whether the settings were registered."""
        return self._number is not None

    def read(
        self,
        digests: Sequence[bytes],
        slots: Sequence[Slot],
        out: NDArray[np.floating],
        rows: Sequence[int],
    ) -> NDArray[np.bool_]:
        """Read pooled prompts into rows of an array.

        Parameters
        ----------
        digests : sequence of bytes
            The prompts.
        slots : sequence of (int, str, str or None)
            What to read of each.
        out : ndarray of shape (n_rows, n_slots, hidden_size), float32
            Takes what is held.
        rows : sequence of int
            The row of each prompt.

        Returns
        -------
        ndarray of shape (n, n_slots), bool
            What is not held, or damaged.
        """
        missing = np.ones((len(digests), len(slots)), dtype=bool)
        for number, layout, vectors, plan in self._read_each(digests, slots):
            places, positions, is_whole = plan
            if layout.hidden_size != out.shape[2]:
                continue
            if is_whole:
                # One copy, without a list of where each goes.
                states = layout.unpack(vectors)[: len(slots)]
                out[rows[number]] = decode(states, layout.dtype)
                missing[number] = False
            else:
                states = layout.unpack(vectors)[places]
                out[rows[number], positions] = decode(states, layout.dtype)
                missing[number, positions] = False
        return missing

    def read_tokens(
        self,
        digests: Sequence[bytes],
        slots: Sequence[Slot],
        out: NDArray[np.object_],
        rows: Sequence[int],
        dtype: np.dtype[np.floating],
    ) -> NDArray[np.bool_]:
        """Read the tokens of prompts: as ``read``, into an array of arrays.

        Each is of shape (n_tokens, n_slots, hidden_size) and of ``dtype``.
        """
        missing = np.ones((len(digests), len(slots)), dtype=bool)
        # Texts share blocks of memory: many small ones take much longer to get.
        block = np.empty(0, dtype=dtype)
        for number, layout, vectors, plan in self._read_each(digests, slots):
            places, positions, is_whole = plan
            states = decode(layout.unpack(vectors), layout.dtype)
            _, n_tokens, hidden_size = states.shape
            shape = (n_tokens, len(slots), hidden_size)
            held = out[rows[number]]
            if held is None:
                size = math.prod(shape)
                if size > len(block):
                    block = np.empty(max(size, _BLOCK_SIZE), dtype=dtype)
                held = out[rows[number]] = block[:size].reshape(shape)
                block = block[size:]
            if held.shape != shape:
                continue
            if is_whole:
                held[:] = states[: len(slots)].transpose(1, 0, 2)
                missing[number] = False
            else:
                held[:, positions] = states[places].transpose(1, 0, 2)
                missing[number, positions] = False
        return missing

    def _read_each(
        self, digests: Sequence[bytes], slots: Sequence[Slot]
    ) -> Iterator[tuple[int, Layout, memoryview, Plan]]:
        """Read the records of prompts that hold any of some slots.

        Gives each prompt's number, the record's layout and bytes, and which vectors of
        it are wanted.
        """
        position = {slot: number for number, slot in enumerate(slots)}
        every = list(range(len(slots)))
        # The records of one model have few layouts.
        plans: dict[bytes, Plan] = {}
        for number, digest in enumerate(digests):
            if number % _LOOKED_UP == 0:
                found = self._look_up(digests[number : number + _LOOKED_UP])
            for _, layout, vectors in self._read(digest, found[digest]):
                if layout is None:
                    continue
                plan = plans.get(layout.description)
                if plan is None:
                    places = [p for p, s in enumerate(layout.slots) if s in position]
                    positions = [position[layout.slots[place]] for place in places]
                    plan = (places, positions, positions == places == every)
                    plans[layout.description] = plan
                if plan[0]:
                    yield number, layout, vectors, plan

    def hold(self, digest: bytes, slots: Sequence[Slot]) -> bool:
        """Tell whether all of some slots of a prompt are held, and not damaged."""
        wanted = set(slots)
        for _, layout, _ in self._find(digest):
            wanted.difference_update(layout.slots if layout else ())
        return not wanted

    def add(self, digest: bytes, layout: Layout, vectors: memoryview) -> None:
        """Add the vectors of a prompt that are not held, and drop damaged records.

        Parameters
        ----------
        digest : bytes
            The prompt.
        layout : Layout
            What ``vectors`` holds.
        vectors : memoryview
            Their bytes.

        Raises
        ------
        ValueError
            If the prompt is held with another hidden size.
        """
        held: set[Slot] = set()
        for _, found in self._keep_right(digest):
            if found.hidden_size != layout.hidden_size:
                raise ValueError(
                    "The 'states' parameter of ActivationStore.write must have as many "
                    f"units as the store holds of these settings, {found.hidden_size}. "
                    f"Got {layout.hidden_size} instead."
                )
            held.update(found.slots)
        if held.issuperset(layout.slots):
            return
        if not held.isdisjoint(layout.slots):
            new = [n for n, slot in enumerate(layout.slots) if slot not in held]
            vectors = memoryview(layout.unpack(vectors)[new].tobytes())
            slots = tuple(layout.slots[n] for n in new)
            layout = Layout(layout.dtype, layout.hidden_size, slots)
        self._connection.execute(
            "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)",
            (
                self._number,
                digest,
                self._number_layout(layout),
                self._vectors.append(vectors),
                len(vectors),
                layout.sum_up(self._settings + digest, vectors),
            ),
        )

    def move(self, target: VectorFile) -> None:
        """Append all records to another file, and forget the damaged ones."""
        rows = self._connection.execute(
            "SELECT DISTINCT digest FROM records WHERE settings = ?", (self._number,)
        )
        for (digest,) in rows.fetchall():
            self._keep_right(digest)
            for number, _, vectors in self._find(digest):
                self._connection.execute(
                    "UPDATE records SET start = ? "
                    "WHERE settings = ? AND digest = ? AND layout = ?",
                    (target.append(vectors), self._number, digest, number),
                )

    def list_right(self) -> Iterator[tuple[bytes, Layout, bytes]]:
        """Give the digest, layout and bytes of each record that is not damaged."""
        rows = self._connection.execute(
            "SELECT DISTINCT digest FROM records WHERE settings = ? ORDER BY digest",
            (self._number,),
        )
        for (digest,) in rows.fetchall():
            for _, layout, vectors in self._find(digest):
                if layout is not None:
                    yield digest, layout, bytes(vectors)

    def _keep_right(self, digest: bytes) -> list[tuple[int, Layout]]:
        """Delete the damaged records of a prompt, and list the others' layouts."""
        found = [(number, layout) for number, layout, _ in self._find(digest)]
        right = [(number, layout) for number, layout in found if layout is not None]
        if len(right) < len(found):
            self._connection.execute(
                "DELETE FROM records WHERE settings = ? AND digest = ? AND layout "
                f"NOT IN ({', '.join(str(number) for number, _ in right)})",
                (self._number, digest),
            )
        return right

    def _find(self, digest: bytes) -> Iterator[tuple[int, Layout | None, memoryview]]:
        """Give each record's layout, numbered, and bytes; None where it is damaged.

        The bytes are good until the next record is read.
        """
        yield from self._read(digest, self._look_up([digest])[digest])

    def _look_up(self, digests: Sequence[bytes]) -> dict[bytes, list[_Row]]:
        """Find the rows of some prompts with one query."""
        rows: dict[bytes, list[_Row]] = {digest: [] for digest in digests}
        for digest, *row in self._connection.execute(
            "SELECT digest, start, size, layout, checksum FROM records WHERE "
            f"settings = ? AND digest IN ({', '.join('?' * len(rows))})",
            (self._number, *rows),
        ):
            rows[digest].append(row)
        return rows

    def _read(
        self, digest: bytes, rows: list[_Row]
    ) -> Iterator[tuple[int, Layout | None, memoryview]]:
        for start, size, number, checksum in rows:
            layout = self._layouts.get(number)
            vectors = memoryview(b"")
            if layout is not None and layout.is_size(size):
                vectors = self._vectors.read(start, size)
            if (
                layout is None
                or len(vectors) != size
                or layout.sum_up(self._settings + digest, vectors) != checksum
            ):
                self.n_damaged += 1
                layout = None
            yield number, layout, vectors

    def _number_layout(self, layout: Layout) -> int:
        for number, known in self._layouts.items():
            if known is not None and known.description == layout.description:
                return int(number)
        inserted = self._connection.execute(
            "INSERT INTO layouts (description) VALUES (?)",
            (layout.description.decode(),),
        )
        new = int(inserted.lastrowid or 0)
        self._layouts[new] = layout
        return new


@contextmanager
def open_records(
    connection: sqlite3.Connection,
    folder: Path,
    settings: bytes,
    *,
    write: bool = False,
) -> Iterator[Records]:
    """Open the records of settings, and the file of their vectors, in a transaction."""
    generation, end = _find_file(connection)
    path = folder / f"vectors-{generation}.bin"
    with closing(VectorFile(path, end, write=write)) as vectors:
        yield Records(connection, vectors, settings)
        if vectors.end != end:
            connection.execute("UPDATE store SET n_bytes = ?", (vectors.end,))


def move_records(connection: sqlite3.Connection, folder: Path) -> Path:
    """Copy all records that are not damaged into a new file, and give its path."""
    generation, _ = _find_file(connection)
    path = folder / f"vectors-{generation + 1}.bin"
    # A process that was killed here may have left its own attempt.
    path.unlink(missing_ok=True)
    connection.execute(
        "DELETE FROM records WHERE typeof(digest) <> 'blob' "
        "OR settings NOT IN (SELECT id FROM settings)"
    )
    with closing(VectorFile(path, 0, write=True)) as target:
        keys = connection.execute("SELECT key FROM settings").fetchall()
        for (settings,) in keys:
            with open_records(connection, folder, settings) as records:
                records.move(target)
        connection.execute(
            "UPDATE store SET generation = ?, n_bytes = ?", (generation + 1, target.end)
        )
    return path


def _find_file(connection: sqlite3.Connection) -> tuple[int, int]:
    """Find the number of the file of vectors, and its bytes in use."""
    row = connection.execute("SELECT generation, n_bytes FROM store").fetchone()
    if row is None or not all(isinstance(number, int) for number in row):
        raise sqlite3.DatabaseError("it does not tell where its vectors are")
    generation, n_bytes = row
    return generation, n_bytes
