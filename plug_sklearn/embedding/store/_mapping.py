"""LMDB's map of a data file, which other processes may make longer at any moment.

A map must be at least as long as the data. When LMDB begins a transaction and finds
that another process has added more than fits, it fails; `lmdb.open` begins one itself.
Each function here then makes the map twice as long and tries again. That comes to an
end even if a damaged file claims a wrong length: the system refuses a map too long.
"""

from pathlib import Path
from typing import TypeAlias

import lmdb

from plug_sklearn.embedding.store._failures import is_forbidden

#: Values come as views of the memory map, and end with the transaction.
Transaction: TypeAlias = "lmdb.Transaction[memoryview]"


def map_file(path: Path, map_size: int, *, readonly: bool) -> lmdb.Environment:
    """Map the data file of a store, and make it if it is not there.

    Parameters
    ----------
    path : Path
        The data file.
    map_size : int
        Length of the map in bytes, if the data are not longer.
    readonly : bool
        Whether nothing may be written.

    Returns
    -------
    lmdb.Environment
        The mapped file.
    """
    try:
        environment = _map_growing_file(path, map_size, readonly=readonly, lock=True)
    except lmdb.Error as error:
        if not (readonly and is_forbidden(error)):
            raise
        # A folder that one may only read has no place for readers' locks.
        return _map_growing_file(path, map_size, readonly=readonly, lock=False)
    if not readonly:
        # Killed readers would keep pages from being used again.
        environment.reader_check()
    return environment


def begin_transaction(environment: lmdb.Environment, *, write: bool) -> Transaction:
    """Begin a transaction; no other may be open in this process."""
    while True:
        try:
            return environment.begin(write=write, buffers=True)
        except lmdb.MapResizedError:
            double_map(environment)


def double_map(environment: lmdb.Environment) -> None:
    """Make the map twice as long; no transaction may be open in this process."""
    environment.set_mapsize(2 * environment.info()["map_size"])


def _map_growing_file(
    path: Path, map_size: int, *, readonly: bool, lock: bool
) -> lmdb.Environment:
    while True:
        try:
            return lmdb.open(
                str(path.parent),
                map_size=map_size,
                readonly=readonly,
                lock=lock,
                # A power cut may lose the last transaction, and nothing else.
                metasync=False,
                mode=0o666,
                max_readers=1024,
            )
        except lmdb.MapResizedError:
            # LMDB maps data that are longer than map_size without any spare room.
            map_size = 2 * max(map_size, path.stat().st_size)
