"""A store written anew, without what was deleted, damaged or scattered."""

from pathlib import Path

import lmdb

from plug_sklearn.embedding.store._environments import Environment
from plug_sklearn.embedding.store._holdings import merge_records
from plug_sklearn.embedding.store._mapping import Transaction

_SPARE_MAP_SIZE = 2**26
#: Bytes in one transaction.
_TRANSACTION_SIZE = 2**26


def compact_file(environment: Environment) -> None:
    """Write the data file anew and put it in the place of the old one.

    Raises
    ------
    StoreError
        If another process has the store open, or the disk has no room for both files;
        the old one is then kept.
    """
    path = environment.folder / "compacted.mdb"
    with environment.exclude_others():
        try:
            # One left by a process that was killed would be added to.
            path.unlink(missing_ok=True)
            size = environment.data_path.stat().st_size + _SPARE_MAP_SIZE
            environment.read(lambda transaction: _copy(transaction, path, size))
            environment.replace(path)
        finally:
            path.unlink(missing_ok=True)


def _copy(transaction: Transaction, path: Path, map_size: int) -> None:
    with lmdb.open(
        str(path), subdir=False, lock=False, map_size=map_size, mode=0o666
    ) as copied:
        entries = merge_records(transaction)
        is_full = True
        while is_full:
            size, is_full = 0, False
            with copied.begin(write=True) as target:
                for key, value in entries:
                    # Appending packs pages full; a damaged key may be out of order.
                    if not target.put(key, value, append=True):
                        target.put(key, value, overwrite=False)
                    size += len(value)
                    if size >= _TRANSACTION_SIZE:
                        is_full = True
                        break
