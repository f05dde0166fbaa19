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
    plan_reading,
)
from plug_sklearn.embedding.store._record_reader import RecordReader, Run
from plug_sklearn.embedding.store._settings import KEY_SIZE
from plug_sklearn.embedding.store._vectors import Memory, VectorFile, decode

#: A digest that is damaged may be anything.
_IS_DIGEST = f"typeof(digest) = 'blob' AND length(digest) = {KEY_SIZE}"


class Records(RecordReader):
    """The records of one model and its settings, within one transaction.

    :class:`RecordReader` documents the parameters.
    """

    @property
    def are_known(self) -> bool:
        """Whether the settings were registered."""
        return self._number is not None

    def read(
        self,
        digests: Sequence[bytes],
        slots: Sequence[Slot],
        out: NDArray[np.floating],
        rows: NDArray[np.int64],
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
        rows : ndarray of shape (n,), int
            The row of each prompt.

        Returns
        -------
        ndarray of shape (n, n_slots), bool
            What is not held, or damaged.
        """
        missing = np.ones((len(digests), len(slots)), dtype=bool)
        plans = self._plan(slots)
        for run in self.find_runs(digests, plans):
            layout, vectors = run.layout, self._vectors.read(run.start, run.size)
            right = self.list_right(run, vectors, digests)
            if layout.hidden_size != out.shape[2]:
                continue
            places, positions, is_whole = plans[run.kind]
            stored = layout.unpack(vectors)
            stored = stored.reshape(-1, len(layout.slots), layout.hidden_size)
            for number in right:
                prompt = run.prompts[number]
                if is_whole:
                    # One copy, without a list of where each goes.
                    states = decode(stored[number, : len(slots)], layout.dtype)
                    out[rows[prompt]] = states
                    missing[prompt] = False
                else:
                    states = decode(stored[number, places], layout.dtype)
                    out[rows[prompt], positions] = states
                    missing[prompt, positions] = False
        return missing

    def read_tokens(
        self,
        digests: Sequence[bytes],
        slots: Sequence[Slot],
        out: NDArray[np.object_],
        rows: NDArray[np.int64],
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
        plans, memory = self._plan(slots), Memory(len(digests))
        # On disk, each slot's tokens stand together. A single slot stands there as it
        # is to be given.
        as_asked = {
            kind
            for kind in plans
            if len(self._layouts[kind].slots) == len(slots) == 1
            and self._layouts[kind].is_stored_as(dtype)
        }
        for run in self.find_runs(digests, plans):
            is_as_asked = run.kind in as_asked
            room = memory.take(run.size, len(run.prompts)) if is_as_asked else None
            vectors = self._vectors.read(run.start, run.size, room)
            right = self.list_right(run, vectors, digests)
            own_rows = rows[run.prompts[right]]
            if is_as_asked and all(held is None for held in out[own_rows]):
                tokens = run.layout.unpack(vectors)[0, :, None, None]
                edges = (run.edges // tokens[0].nbytes).tolist()
                for number, row in zip(right, own_rows.tolist(), strict=True):
                    out[row] = tokens[edges[number] : edges[number + 1]]
                missing[run.prompts[right]] = False
                continue
            places, positions, _ = plans[run.kind]
            layers, parts = np.divmod(positions, shape[1])
            for number, row in zip(right, own_rows, strict=True):
                start, stop = run.edges[number : number + 2]
                stored = run.layout.unpack(vectors[start:stop])
                item_shape = (stored.shape[1], *shape, stored.shape[2])
                if out[row] is None:
                    room = memory.take(math.prod(item_shape) * dtype.itemsize)
                    out[row] = np.ndarray(item_shape, dtype, room)
                if out[row].shape == item_shape:
                    states = decode(stored[places], run.layout.dtype)
                    out[row][:, layers, parts] = states.transpose(1, 0, 2)
                    missing[run.prompts[number], positions] = False
        return missing

    def _plan(self, slots: Sequence[Slot]) -> dict[int, Plan]:
        """Plan the reading of each layout, by number, that holds any of some slots."""
        plans = {
            kind: plan_reading(layout, slots) for kind, layout in self._layouts.items()
        }
        return {kind: plan for kind, plan in plans.items() if plan.places}

    def hold(self, digest: bytes, slots: Sequence[Slot]) -> bool:
        """Return whether all of some slots of a prompt are held, and not damaged."""
        wanted = set(slots)
        for run, vectors in self.read_runs([digest]):
            if self.list_right(run, vectors, [digest]):
                wanted.difference_update(run.layout.slots)
        return not wanted

    def add(
        self, digests: Sequence[bytes], layout: Layout, vectors: Sequence[memoryview]
    ) -> None:
        """Add the vectors of prompts that are not held, and drop damaged records.

        Parameters
        ----------
        digests : sequence of bytes
            The prompts.
        layout : Layout
            What each item of ``vectors`` holds.
        vectors : sequence of memoryview
            Their bytes.

        Raises
        ------
        ValueError
            If a prompt is held with another hidden size.
        """
        held = self._keep_right(digests)
        for digest, own in zip(digests, vectors, strict=True):
            found, added = held[digest], layout
            for size in {one.hidden_size for one in found} - {layout.hidden_size}:
                raise ValueError(
                    "The 'states' parameter of ActivationStore.write must have the "
                    "hidden size of what the store holds for these settings, "
                    f"{size}. Got {layout.hidden_size} instead."
                )
            slots = {slot for one in found for slot in one.slots}
            new = [n for n, slot in enumerate(layout.slots) if slot not in slots]
            if not new:
                continue
            if len(new) < len(layout.slots):
                own = memoryview(layout.unpack(own)[new].tobytes())
                left = tuple(layout.slots[n] for n in new)
                added = Layout(layout.dtype, layout.hidden_size, left)
            held[digest].append(added)
            self._connection.execute(
                "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)",
                (
                    self._number,
                    digest,
                    self._number_layout(added),
                    self._vectors.append(own),
                    len(own),
                    *added.sum_up([self._settings + digest], [own]),
                ),
            )

    def move(self, target: VectorFile) -> None:
        """Append all records to another file, and forget the damaged ones."""
        digests = self._list_digests()
        self._keep_right(digests)
        for digest, run, vectors in self._read_each(digests):
            self._connection.execute(
                "UPDATE records SET start = ? "
                "WHERE settings = ? AND digest = ? AND layout = ?",
                (target.append(vectors), self._number, digest, run.kind),
            )

    def list_all(self) -> Iterator[tuple[bytes, Layout, bytes]]:
        """Return the digest, layout and bytes of each record that is not damaged."""
        for digest, run, vectors in self._read_each(self._list_digests()):
            yield digest, run.layout, bytes(vectors)

    def _read_each(
        self, digests: Sequence[bytes]
    ) -> Iterator[tuple[bytes, Run, memoryview]]:
        """Read the records of prompts one by one, in the order of the file."""
        for run, vectors in self.read_runs(digests):
            for number in self.list_right(run, vectors, digests):
                start, stop = run.edges[number : number + 2]
                yield digests[run.prompts[number]], run, vectors[start:stop]

    def _list_digests(self) -> list[bytes]:
        rows = self._connection.execute(
            "SELECT DISTINCT digest FROM records WHERE settings = ? AND "
            f"{_IS_DIGEST} ORDER BY digest",
            (self._number,),
        )
        return [digest for (digest,) in rows]

    def _keep_right(self, digests: Sequence[bytes]) -> dict[bytes, list[Layout]]:
        """Delete the damaged records of prompts, and list the layouts of the others."""
        n_before = self.n_damaged
        right: dict[bytes, dict[int, Layout]] = {digest: {} for digest in digests}
        for digest, run, _ in self._read_each([*right]):
            right[digest][run.kind] = run.layout
        if self.n_damaged > n_before:
            for digest, layouts in right.items():
                self._connection.execute(
                    "DELETE FROM records WHERE settings = ? AND digest = ? AND layout "
                    f"NOT IN ({', '.join(map(str, layouts))})",
                    (self._number, digest),
                )
        return {digest: [*layouts.values()] for digest, layouts in right.items()}

    def _number_layout(self, layout: Layout) -> int:
        for number, known in self._layouts.items():
            if known.description == layout.description:
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
        f"DELETE FROM records WHERE NOT ({_IS_DIGEST}) "
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
