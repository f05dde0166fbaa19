"""Records: the vectors of one prompt that were written together, with a checksum.

Vectors stand one after another in a file, each as little-endian numbers. The layout
that a record refers to says which slots they are of, their size and their dtype. The
checksum is over the settings, the prompt, the layout and the vectors: a record that was
changed, or that stands where it does not belong, does not fit it.
"""

import math
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from plug_sklearn.embedding.store._layouts import (
    Layout,
    Plan,
    Slot,
    parse_layout,
    plan_reading,
)
from plug_sklearn.embedding.store._vectors import VectorFile, decode

#: Start, size, number of the layout and checksum of a record.
_Row = list[Any]
#: Prompts that one query finds.
_LOOKED_UP = 500
#: Bytes in a block of memory that the tokens of several texts share, and in one read.
_BLOCK_SIZE = 2**23


class _Found(NamedTuple):
    """A record that is wanted: where it stands, and the number of its prompt."""

    start: int
    size: int
    number: int
    layout: Layout
    checksum: int


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
            number: parse_layout(description)
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
        shape: tuple[int, int],
    ) -> NDArray[np.bool_]:
        """Read the tokens of prompts: as ``read``, into an array of arrays.

        Each is of shape (n_tokens, n_layers, n_parts, hidden_size) and of ``dtype``.
        The slots are ``shape``, (n_layers, n_parts), layer by layer.

        Arrays of several prompts are slices of one block of memory that do not overlap:
        many small ones take much longer to get. One that is kept keeps its block, but
        a pickle or a copy of it holds nothing else.
        """
        missing = np.ones((len(digests), len(slots)), dtype=bool)
        # On disk, each slot's tokens stand together. A single slot stands there as it
        # is to be given.
        as_stored = dtype if len(slots) == 1 else None
        block = np.empty(0, dtype=dtype)
        for number, layout, vectors, plan in self._read_each(digests, slots, as_stored):
            stored = layout.unpack(vectors)
            n_slots, n_tokens, hidden_size = stored.shape
            item_shape = (n_tokens, *shape, hidden_size)
            held = out[rows[number]]
            is_same = plan.is_whole and n_slots == 1 and as_stored is not None
            if held is None and is_same and layout.is_stored_as(dtype):
                out[rows[number]] = stored.reshape(item_shape)
                missing[number] = False
                continue
            if held is None:
                size = math.prod(item_shape)
                if size > len(block):
                    most = _BLOCK_SIZE // dtype.itemsize
                    block = np.empty(max(size, most), dtype=dtype)
                held = out[rows[number]] = block[:size].reshape(item_shape)
                block = block[size:]
            if held.shape != item_shape:
                continue
            layers, parts = np.divmod(plan.positions, shape[1])
            states = decode(stored[plan.places], layout.dtype)
            held[:, layers, parts] = states.transpose(1, 0, 2)
            missing[number, plan.positions] = False
        return missing

    def _read_each(
        self,
        digests: Sequence[bytes],
        slots: Sequence[Slot],
        as_stored: np.dtype[np.floating] | None = None,
    ) -> Iterator[tuple[int, Layout, memoryview, Plan]]:
        """Read the records of prompts that hold any of some slots.

        Gives each prompt's number, the record's layout and bytes, and which vectors of
        it are wanted. Bytes that are of the dtype ``as_stored`` may be kept; others are
        overwritten when the next record is asked for.
        """
        # The records of one model have few layouts.
        plans = {
            layout.description: plan_reading(layout, slots)
            for layout in self._layouts.values()
            if layout is not None
        }
        for start in range(0, len(digests), _LOOKED_UP):
            some = digests[start : start + _LOOKED_UP]
            rows = self._look_up(some)
            found = [
                record
                for number, digest in enumerate(some, start)
                for record in self._list_right(number, rows[digest])
                if plans[record.layout.description].places
            ]
            for run in _cut_runs(sorted(found, key=attrgetter("start"))):
                size = run[-1].start + run[-1].size - run[0].start
                is_kept = as_stored is not None and run[0].layout.is_stored_as(
                    as_stored
                )
                vectors = self._vectors.read(run[0].start, size, is_kept=is_kept)
                for record in run:
                    begin = record.start - run[0].start
                    own = vectors[begin : begin + record.size]
                    if self._is_right(record, digests[record.number], own):
                        plan = plans[record.layout.description]
                        yield record.number, record.layout, own, plan

    def _list_right(self, number: int, rows: list[_Row]) -> Iterator[_Found]:
        """List the records of a prompt that can stand where they are said to."""
        for start, size, layout_number, checksum in rows:
            layout = self._layouts.get(layout_number)
            if (
                layout is None
                or not layout.is_size(size)
                or not self._vectors.holds(start, size)
            ):
                self.n_damaged += 1
            else:
                yield _Found(start, size, number, layout, checksum)

    def _is_right(self, record: _Found, digest: bytes, vectors: memoryview) -> bool:
        """Tell whether a record's bytes are what was written, and count it if not."""
        is_right = (
            len(vectors) == record.size
            and record.layout.sum_up(self._settings + digest, vectors)
            == record.checksum
        )
        self.n_damaged += not is_right
        return is_right

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
                    "The 'states' parameter of ActivationStore.write must have the "
                    "hidden size of what the store holds for these settings, "
                    f"{found.hidden_size}. Got {layout.hidden_size} instead."
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
        for row in rows:
            vectors, layout = memoryview(b""), None
            for record in self._list_right(0, [row]):
                vectors = self._vectors.read(record.start, record.size)
                if self._is_right(record, digest, vectors):
                    layout = record.layout
            yield row[2], layout, vectors

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


def _cut_runs(records: Sequence[_Found]) -> Iterator[list[_Found]]:
    """Cut records, sorted by start, into runs of one layout without gaps."""
    run: list[_Found] = []
    for record in records:
        last = run[-1] if run else record
        if run and (
            record.start != last.start + last.size
            or record.layout is not last.layout
            or record.start + record.size - run[0].start > _BLOCK_SIZE
        ):
            yield run
            run = []
        run.append(record)
    if run:
        yield run


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
