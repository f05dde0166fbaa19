"""Find the records of prompts, read them with few calls, and check them."""

import sqlite3
from collections.abc import Container, Iterator, Sequence
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from plug_sklearn.embedding.store._layouts import Layout, parse_layout
from plug_sklearn.embedding.store._settings import KEY_SIZE
from plug_sklearn.embedding.store._vectors import VectorFile

#: Prompts that one query finds.
_LOOKED_UP = 10_000
#: Bytes that one read takes, but for the last record of a run: they are still in the
#: processor's cache when their checksums are computed.
_READ_SIZE = 2**20
#: Columns of a record; -1 in place of what is damaged, which may be of any type.
_COLUMNS = ", ".join(
    f"CASE typeof({name}) WHEN 'integer' THEN {name} ELSE -1 END"
    for name in ("layout", "start", "size", "checksum")
)
#: Find the records of prompts, whose digests stand one after another. This takes less
#: than a third of the time of a list of digests.
_FIND = f"""
WITH RECURSIVE wanted(number) AS (
    SELECT 0 UNION ALL SELECT number + 1 FROM wanted WHERE number < :last
)
SELECT number, {_COLUMNS} FROM wanted CROSS JOIN records
WHERE settings = :settings
AND digest = substr(:digests, 1 + {KEY_SIZE} * number, {KEY_SIZE})
"""


class Run(NamedTuple):
    """Records of one layout that stand one after another.

    Attributes
    ----------
    kind : int
        Number of the layout.
    layout : Layout
        The layout.
    start : int
        Where the first record begins in the file.
    size : int
        Bytes of all records.
    edges : ndarray of shape (n_records + 1,), int
        Where each record begins, counted from ``start``, and where the last one ends.
    prompts : ndarray of shape (n_records,), int
        The prompt of each record.
    checksums : list of int
        The checksum of each record.
    """

    kind: int
    layout: Layout
    start: int
    size: int
    edges: NDArray[np.int64]
    prompts: NDArray[np.int64]
    checksums: list[int]


class RecordReader:
    """Reads the records of one model and its settings, within one transaction.

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
        layouts = {
            number: parse_layout(description)
            for number, description in connection.execute("SELECT * FROM layouts")
        }
        self._layouts = {kind: one for kind, one in layouts.items() if one is not None}

    def read_runs(self, digests: Sequence[bytes]) -> Iterator[tuple[Run, memoryview]]:
        """Read all records of prompts, in the order in which they stand in the file.

        The vectors of a run are overwritten when the next are asked for.
        """
        for run in self.find_runs(digests):
            yield run, self._vectors.read(run.start, run.size)

    def find_runs(
        self, digests: Sequence[bytes], kinds: Container[int] | None = None
    ) -> Iterator[Run]:
        """Find the records of prompts, in the order in which they stand in the file.

        ``kinds`` are the numbers of the layouts to read; None: all. Records that cannot
        stand where they are said to are counted as damaged.
        """
        for first in range(0, len(digests), _LOOKED_UP):
            prompts, numbers, starts, sizes, checksums = self._find(
                digests[first : first + _LOOKED_UP]
            )
            ends, blocks = starts + sizes, starts // _READ_SIZE
            is_cut = (starts[1:] != ends[:-1]) | (numbers[1:] != numbers[:-1])
            is_cut |= blocks[1:] != blocks[:-1]
            cuts = [0, *(np.flatnonzero(is_cut) + 1).tolist(), len(starts)]
            for begin, stop in pairwise(cuts if len(starts) else []):
                kind = int(numbers[begin])
                if kinds is None or kind in kinds:
                    edges = np.append(starts[begin:stop], ends[stop - 1])
                    edges -= starts[begin]
                    yield Run(
                        kind,
                        self._layouts[kind],
                        int(starts[begin]),
                        int(edges[-1]),
                        edges,
                        prompts[begin:stop] + first,
                        checksums[begin:stop].tolist(),
                    )

    def list_right(
        self, run: Run, vectors: memoryview, digests: Sequence[bytes]
    ) -> list[int]:
        """List the records of a run that are not damaged, and count the others."""
        keys = [self._settings + digests[prompt] for prompt in run.prompts.tolist()]
        pieces = [vectors[start:stop] for start, stop in pairwise(run.edges.tolist())]
        found = run.layout.sum_up(keys, pieces)
        if found == run.checksums:
            return [*range(len(found))]
        pairs = zip(found, run.checksums, strict=True)
        right = [n for n, (own, expected) in enumerate(pairs) if own == expected]
        self.n_damaged += len(found) - len(right)
        return right

    def _find(self, digests: Sequence[bytes]) -> NDArray[np.int64]:
        """Find the records of prompts that can stand where they are said to.

        Returns the columns of the query, of shape (5, n_records), sorted by start.
        """
        rows = self._connection.execute(
            _FIND,
            {
                "settings": self._number,
                "digests": b"".join(digests),
                "last": len(digests) - 1,
            },
        )
        found = np.fromiter(chain.from_iterable(rows), np.int64).reshape(-1, 5).T
        _, numbers, starts, sizes, _ = found
        fits = np.zeros(len(starts), dtype=bool)
        for kind, layout in self._layouts.items():
            fits |= (numbers == kind) & layout.are_sizes(sizes)
        fits &= self._vectors.holds(starts, sizes)
        self.n_damaged += len(fits) - int(fits.sum())
        found = found[:, fits]
        return np.ascontiguousarray(found[:, found[2].argsort(kind="stable")])
