"""Read records that stand one after another at once, and check each of them."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from operator import itemgetter
from typing import NamedTuple

from plug_sklearn.embedding.store._layouts import Layout
from plug_sklearn.embedding.store._vectors import VectorFile

#: Most bytes that are read at once, unless a single record has more.
BLOCK_SIZE = 2**26


class Record(NamedTuple):
    """Where the vectors of a prompt stand, what they are, and their checksum."""

    start: int
    size: int
    layout: Layout
    checksum: int
    digest: bytes


#: Records of one layout that stand one after another.
Run = list[Record]


def cut_runs(records: Sequence[Record]) -> Iterator[Run]:
    """Cut records into runs, each small enough to be read at once."""
    ordered = sorted(records, key=itemgetter(0))
    begin = 0
    for place, (last, record) in enumerate(pairwise(ordered), 1):
        if (
            record.start != last.start + last.size
            or record.layout is not last.layout
            or record.start + record.size - ordered[begin].start > BLOCK_SIZE
        ):
            yield ordered[begin:place]
            begin = place
    if ordered:
        yield ordered[begin:]


def read_run(
    file: VectorFile, run: Run, settings: bytes, *, is_kept: bool
) -> list[tuple[bytes, memoryview]]:
    """List the digests and bytes of the records of a run that are not damaged.

    The bytes are overwritten when the next run is read, unless ``is_kept``.
    """
    begin, last, sum_up = run[0].start, run[-1], run[0].layout.sum_up
    vectors = file.read(begin, last.start + last.size - begin, is_kept=is_kept)
    return [
        (digest, own)
        for start, size, _, checksum, digest in run
        # The file may be cut short within the run.
        if len(own := vectors[start - begin : start - begin + size]) == size
        and sum_up(settings + digest, own) == checksum
    ]
