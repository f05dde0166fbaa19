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
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from plug_sklearn.embedding.store._layouts import (
    Layout,
    Plan,
    Slot,
    parse_layout,
    plan_reading,
)
from plug_sklearn.embedding.store._runs import BLOCK_SIZE, Record, cut_runs, read_run
from plug_sklearn.embedding.store._vectors import VectorFile, decode

#: Prompts that one query finds.
_LOOKED_UP = 2000


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
        for layout, plan, right in self._read_runs(digests, slots):
            if layout.hidden_size != out.shape[2]:
                continue
            for number, vectors in right:
                states = layout.unpack(vectors)
                if plan.is_whole:
                    # One copy, without a list of where each goes.
                    states = decode(states[: len(slots)], layout.dtype)
                    out[rows[number]] = states
                else:
                    states = decode(states[plan.places], layout.dtype)
                    out[rows[number], plan.positions] = states
            missing[np.ix_([number for number, _ in right], plan.positions)] = False
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
        block = np.empty(0, dtype=dtype)
        for layout, plan, right in self._read_runs(digests, slots, dtype):
            layers, parts = np.divmod(plan.positions, shape[1])
            read = []
            for number, vectors in right:
                row = rows[number]
                held = out[row]
                if held is None and plan.is_result:
                    tokens = np.frombuffer(vectors, dtype)
                    out[row] = tokens.reshape(-1, 1, 1, layout.hidden_size)
                    read.append(number)
                    continue
                stored = layout.unpack(vectors)
                item_shape = (stored.shape[1], *shape, layout.hidden_size)
                if held is None:
                    size = math.prod(item_shape)
                    if size > len(block):
                        most = BLOCK_SIZE // dtype.itemsize
                        block = np.empty(max(size, most), dtype=dtype)
                    held = out[row] = block[:size].reshape(item_shape)
                    block = block[size:]
                if held.shape == item_shape:
                    states = decode(stored[plan.places], layout.dtype)
                    held[:, layers, parts] = states.transpose(1, 0, 2)
                    read.append(number)
            missing[np.ix_(read, plan.positions)] = False
        return missing

    def _read_runs(
        self,
        digests: Sequence[bytes],
        slots: Sequence[Slot],
        tokens_dtype: np.dtype[np.floating] | None = None,
    ) -> Iterator[tuple[Layout, Plan, list[tuple[int, memoryview]]]]:
        """Read the records of prompts that hold any of some slots.

        Gives the layout of some records, what is wanted of them, and the number of the
        prompt and the bytes of each. Bytes that are the result may be kept, and others
        are overwritten when the next records are asked for.
        """
        # The records of one model have few layouts.
        plans = {
            layout: plan_reading(layout, slots, tokens_dtype)
            for layout in self._layouts.values()
            if layout is not None
        }
        for start in range(0, len(digests), _LOOKED_UP):
            some = digests[start : start + _LOOKED_UP]
            numbers: dict[bytes, list[int]] = {digest: [] for digest in some}
            for number, digest in enumerate(some, start):
                numbers[digest].append(number)
            found = self._look_up([*numbers])
            for run in cut_runs([one for one in found if plans[one.layout].places]):
                plan = plans[run[0].layout]
                right = read_run(
                    self._vectors, run, self._settings, is_kept=plan.is_result
                )
                self.n_damaged += len(run) - len(right)
                of_prompts = [
                    # Equal prompts do not share memory.
                    (number, memoryview(bytearray(vectors)) if place else vectors)
                    for digest, vectors in right
                    for place, number in enumerate(numbers[digest])
                ]
                yield run[0].layout, plan, of_prompts

    def hold(self, digest: bytes, slots: Sequence[Slot]) -> bool:
        """Tell whether all of some slots of a prompt are held, and not damaged."""
        wanted = set(slots)
        for layout, _ in self._find(digest):
            wanted.difference_update(layout.slots)
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
        for found in self._keep_right(digest):
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
            for layout, vectors in self._find(digest):
                number = self._number_layout(layout)
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
            for layout, vectors in self._find(digest):
                yield digest, layout, bytes(vectors)

    def _keep_right(self, digest: bytes) -> list[Layout]:
        """Delete the damaged records of a prompt, and list the others' layouts."""
        n_damaged = self.n_damaged
        right = [layout for layout, _ in self._find(digest)]
        if self.n_damaged > n_damaged:
            numbers = [str(self._number_layout(layout)) for layout in right]
            self._connection.execute(
                "DELETE FROM records WHERE settings = ? AND digest = ? AND layout "
                f"NOT IN ({', '.join(numbers)})",
                (self._number, digest),
            )
        return right

    def _find(self, digest: bytes) -> Iterator[tuple[Layout, memoryview]]:
        """Give the layout and bytes of each record of a prompt that is not damaged.

        The bytes are good until the next record is read.
        """
        for record in self._look_up([digest]):
            right = read_run(self._vectors, [record], self._settings, is_kept=False)
            self.n_damaged += not right
            for _, vectors in right:
                yield record.layout, vectors

    def _look_up(self, digests: Sequence[bytes]) -> list[Record]:
        """Find the records of some prompts that can stand where they are said to."""
        rows = self._connection.execute(
            "SELECT start, size, layout, checksum, digest FROM records WHERE "
            f"settings = ? AND digest IN ({', '.join('?' * len(digests))})",
            (self._number, *digests),
        ).fetchall()
        found = []
        for start, size, number, checksum, digest in rows:
            layout = self._layouts.get(number)
            is_sized = layout is not None and layout.is_size(size)
            if layout and is_sized and self._vectors.holds(start, size):
                found.append(Record(start, size, layout, checksum, digest))
        self.n_damaged += len(rows) - len(found)
        return found

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
