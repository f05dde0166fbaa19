"""Find the records of prompts, read them with few calls, and check them."""

import sqlite3
from collections.abc import Callable, Container, Iterator, Sequence
from itertools import pairwise
from operator import attrgetter
from typing import NamedTuple

from plug_sklearn.embedding.store._layouts import Layout, parse_layout
from plug_sklearn.embedding.store._settings import KEY_SIZE
from plug_sklearn.embedding.store._vectors import VectorFile

#: Prompts that one query finds.
_LOOKED_UP = 10_000
#: Bytes that one read takes at most: they are still in the processor's cache when their
#: checksums are computed.
_READ_SIZE = 2**20
#: Find the records of prompts, whose digests stand one after another. This takes less
#: than a third of the time of a list of digests.
_FIND = f"""
WITH RECURSIVE wanted(number) AS (
    SELECT 0 UNION ALL SELECT number + 1 FROM wanted WHERE number < :last
)
SELECT number, layout, start, size, checksum FROM wanted CROSS JOIN records
WHERE settings = :settings
AND digest = substr(:digests, 1 + {KEY_SIZE} * number, {KEY_SIZE})
"""


class Found(NamedTuple):
    """A record: the number of its prompt and of its layout, and where it stands."""

    prompt: int
    kind: int
    layout: Layout
    start: int
    size: int
    checksum: int


#: Gives the memory to keep records in that stand one after another, by their size.
FindRoom = Callable[[Sequence[Found], int], memoryview | None]


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

    def read_each(
        self, digests: Sequence[bytes], kinds: Container[int] | None = None
    ) -> Iterator[tuple[Found, memoryview]]:
        """Read the records of prompts that are not damaged, and count the others.

        Yields each record with its bytes, which are overwritten when the next is asked
        for. ``kinds`` are the numbers of the layouts to read; None: all.
        """
        for run in self.read_runs(digests, kinds):
            yield from run

    def read_runs(
        self,
        digests: Sequence[bytes],
        kinds: Container[int] | None = None,
        find_room: FindRoom = lambda run, size: None,
    ) -> Iterator[list[tuple[Found, memoryview]]]:
        """Read as ``read_each`` does, but give records of one layout at once.

        ``find_room`` returns memory in which to keep some records that stand one after
        another, or None if their bytes may be overwritten when the next are asked for.
        """
        for first in range(0, len(digests), _LOOKED_UP):
            found = self._find(digests[first : first + _LOOKED_UP], first)
            wanted = [one for one in found if kinds is None or one.kind in kinds]
            for run in _cut_runs(sorted(wanted, key=attrgetter("start"))):
                begin, layout = run[0].start, run[0].layout
                size = run[-1].start + run[-1].size - begin
                vectors = self._vectors.read(begin, size, find_room(run, size))
                right = []
                for record in run:
                    prompt, _, _, start, size, checksum = record
                    own = vectors[start - begin : start - begin + size]
                    key = self._settings + digests[prompt]
                    # The file may be cut short.
                    if len(own) == size and layout.sum_up(key, own) == checksum:
                        right.append((record, own))
                self.n_damaged += len(run) - len(right)
                yield right

    def _find(self, digests: Sequence[bytes], first: int) -> list[Found]:
        """Find the records of prompts that can stand where they are said to."""
        rows = self._connection.execute(
            _FIND,
            {
                "settings": self._number,
                "digests": b"".join(digests),
                "last": len(digests) - 1,
            },
        )
        found = []
        for prompt, kind, start, size, checksum in rows:
            layout = self._layouts.get(kind)
            if (
                layout is not None
                and layout.is_size(size)
                and self._vectors.holds(start, size)
            ):
                found.append(Found(first + prompt, kind, layout, start, size, checksum))
            else:
                self.n_damaged += 1
        return found


def _cut_runs(records: Sequence[Found]) -> Iterator[Sequence[Found]]:
    """Cut records, sorted by start, into runs of one layout without gaps."""
    begin = 0
    for place, (last, record) in enumerate(pairwise(records), 1):
        if (
            record.start != last.start + last.size
            or record.layout is not last.layout
            or record.start + record.size - records[begin].start > _READ_SIZE
        ):
            yield records[begin:place]
            begin = place
    if records:
        yield records[begin:]
