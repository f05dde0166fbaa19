"""The data file of a store: an LMDB environment, mapped when it is needed.

LMDB is a memory-mapped tree of keys and values with many readers and one writer, safe
against a process that is killed.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar
from weakref import WeakSet

import lmdb

from plug_sklearn.embedding.store._failures import StoreError, explain_errors
from plug_sklearn.embedding.store._formats import FORMAT_KEY, read_format, write_format
from plug_sklearn.embedding.store._mapping import (
    Transaction,
    begin_transaction,
    double_map,
    map_file,
)
from plug_sklearn.embedding.store._presence import Presence

Value = TypeVar("Value")

_DATA = "data.mdb"
#: Address space, not disk; doubled when the data outgrow it.
_FIRST_MAP_SIZE = 2**30
#: A commit does not write pages that it freed again, and such may be the last ones.
_MOST_UNWRITTEN_PAGES = 16


class Environment:
    """The data file of one store, as this process sees it.

    One thread of the process uses it at a time.

    Parameters
    ----------
    folder : Path
        Where the store is.
    readonly : bool
        Whether nothing may be written.
    dtype : str or None
        What a new store keeps; None is float32.

    Attributes
    ----------
    dtype : str
        What the store keeps.
    presence : Presence
        The process among the store's users.
    users : WeakSet
        The objects that have it open.
    """

    def __init__(self, folder: Path, *, readonly: bool, dtype: str | None) -> None:
        self.folder = folder
        self.readonly = readonly
        self.dtype = dtype or "float32"
        self.users: WeakSet[object] = WeakSet()
        self.lock = threading.RLock()
        self._presence: Presence | None = None
        self._lmdb: lmdb.Environment | None = None
        self._identity: tuple[int, int] | None = None
        with self.lock, explain_errors(folder):
            self._open()

    @property
    def presence(self) -> Presence:
        """The process among the store's users; for use inside ``read`` or ``write``."""
        if self._presence is None:
            path = self.folder / "users.lock"
            self._presence = Presence(path, readonly=self.readonly)
        return self._presence

    @property
    def data_path(self) -> Path:
        """The data file."""
        return self.folder / _DATA

    def read(self, work: Callable[[Transaction], Value]) -> Value:
        """Run a function with a transaction that sees one state of the data."""
        return self._run(work, write=False)

    def write(self, work: Callable[[Transaction], Value]) -> Value:
        """Run a function with a transaction that others see whole or not at all.

        It runs again where the data outgrow the memory map.
        """
        return self._run(work, write=True)

    def _run(self, work: Callable[[Transaction], Value], *, write: bool) -> Value:
        with self.lock, explain_errors(self.folder):
            environment = self._open()
            while True:
                try:
                    with self._begin(environment, write=write) as transaction:
                        return work(transaction)
                except lmdb.MapFullError:
                    if not write:
                        raise
                    double_map(environment)

    @contextlib.contextmanager
    def _begin(
        self, environment: lmdb.Environment, *, write: bool
    ) -> Iterator[Transaction]:
        with contextlib.ExitStack() as held:
            if write:
                held.enter_context(self.presence.as_writer())
            with self.presence.at_gate():
                transaction = begin_transaction(environment, write=write)
            yield held.enter_context(transaction)

    @contextlib.contextmanager
    def exclude_others(self) -> Iterator[None]:
        """Keep other processes and threads out while the block runs.

        Raises
        ------
        StoreError
            If another process has the store open.
        """
        with self.lock, explain_errors(self.folder):
            self._open()
            if not self.presence.exclude_others():
                raise StoreError(
                    f"The activation store {str(self.folder)!r} is open in another "
                    "process. Close it there first."
                )
            try:
                yield
            finally:
                self.presence.admit_others()

    def replace(self, path: Path) -> None:
        """Put another file in the place of the data file; others must be excluded."""
        self.shut()
        path.replace(self.data_path)

    def allow_writing(self) -> None:
        """Open for writing what was open for reading."""
        with self.lock, explain_errors(self.folder):
            self.close()
            self.readonly = False
            self._open()

    def shut(self) -> None:
        """Unmap the file; it is mapped again when needed."""
        with self.lock:
            if self._lmdb is not None:
                with self.presence.at_gate():
                    self._lmdb.close()
                self._lmdb = None

    def close(self) -> None:
        """Unmap the file and leave its users."""
        with self.lock:
            self.shut()
            if self._presence is not None:
                self._presence.close()
                self._presence = None

    def forget_presence(self) -> None:
        """Take a place of its own for a forked child."""
        self._presence = None

    def _open(self) -> lmdb.Environment:
        if self._lmdb is not None and self._identity != _identify(self.data_path):
            self.close()
        if self._lmdb is None:
            if not self.readonly:
                self.folder.mkdir(parents=True, exist_ok=True)
            elif not self.data_path.exists():
                raise StoreError(
                    f"There is no activation store in {str(self.folder)!r}. Open it "
                    "without readonly=True to make one."
                )
            try:
                # Its lock comes first: no one then replaces the file meanwhile.
                with self.presence.at_gate():
                    self._lmdb = map_file(
                        self.data_path, _FIRST_MAP_SIZE, readonly=self.readonly
                    )
                self._identity = _identify(self.data_path)
                self._check_length(self._lmdb)
                self._check_format(self._lmdb)
            except BaseException:
                self.close()
                raise
        return self._lmdb

    def _check_length(self, environment: lmdb.Environment) -> None:
        """Refuse a file that was cut: touching what is gone would kill the process."""
        n_missing = self._count_missing_pages(environment)
        if n_missing <= 0:
            return
        if n_missing > _MOST_UNWRITTEN_PAGES or self.readonly:
            raise StoreError(
                f"The data file of the activation store {str(self.folder)!r} is cut "
                "short. Put back a whole copy of it, or delete the folder; what it "
                "held is then computed again."
            )
        # Inside a transaction no other process makes the file longer.
        with self._begin(environment, write=True):
            if self._count_missing_pages(environment) > 0:
                os.truncate(self.data_path, _measure(environment))

    def _count_missing_pages(self, environment: lmdb.Environment) -> int:
        n_missing = _measure(environment) - self.data_path.stat().st_size
        return -(-n_missing // environment.stat()["psize"])

    def _check_format(self, environment: lmdb.Environment) -> None:
        with self._begin(environment, write=False) as transaction:
            text = _copy_entry(transaction, FORMAT_KEY)
            is_new = transaction.stat()["entries"] == 0
        if text is None and is_new and not self.readonly:
            with self._begin(environment, write=True) as transaction:
                # Another process may have been faster.
                transaction.put(FORMAT_KEY, write_format(self.dtype), overwrite=False)
                text = _copy_entry(transaction, FORMAT_KEY)
        self.dtype = read_format(self.folder, text)


def _copy_entry(transaction: Transaction, key: bytes) -> bytes | None:
    value = transaction.get(key)
    return None if value is None else bytes(value)


def _measure(environment: lmdb.Environment) -> int:
    """Tell how long the data file must be, in bytes."""
    return (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]


def _identify(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
