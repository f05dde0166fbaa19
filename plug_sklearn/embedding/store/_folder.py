"""The folder of a store: opening, listing, compacting and closing it."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from sqlite3 import Connection, DatabaseError
from typing import Any, Self

from plug_sklearn._forks import make_lock
from plug_sklearn.embedding.store import _settings
from plug_sklearn.embedding.store._database import (
    FILE_NAME,
    Database,
    StoreError,
    begin,
)
from plug_sklearn.embedding.store._records import move_records
from plug_sklearn.embedding.store._settings import StoredModel
from plug_sklearn.embedding.store._vectors import DTYPES

_open_stores: dict[str, Database] = {}
_opening = make_lock()


def open_database(folder: Path, user: object) -> Database:
    """Return the one object that this process has for a store, and note who uses it."""
    name = os.path.realpath(folder)
    with _opening:
        database = _open_stores.get(name)
        if database is None:
            database = _open_stores[name] = Database(Path(name))
        database.users.add(user)
        return database


def close_database(folder: Path, user: object) -> None:
    """End a user's use of a store. With the last one, this process's claims end."""
    name = os.path.realpath(folder)
    with _opening:
        database = _open_stores.get(name)
        if database is not None:
            database.users.discard(user)
            if not database.users:
                database.locks.close()
                del _open_stores[name]


class StoreFolder:
    """The folder of a store as a whole: opened, listed, cleaned up and closed.

    :class:`ActivationStore` documents the parameters.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        readonly: bool = False,
        dtype: str | None = None,
    ) -> None:
        if dtype is not None and dtype not in DTYPES:
            raise ValueError(
                f"The 'dtype' parameter of ActivationStore must be None or one of "
                f"{DTYPES}. Got {dtype!r} instead."
            )
        # A worker may run in another folder.
        self.path = Path(path).expanduser().absolute()
        self.readonly = readonly
        self._asked_dtype = dtype
        self._is_closed = False
        try:
            if dtype is not None and not readonly:
                # Whoever opens it later without one finds this dtype.
                self.create()
            found = self.dtype
            if dtype not in (None, found):
                raise ValueError(
                    "The 'dtype' parameter of ActivationStore must be None or the "
                    f"store's own, {found!r}. Got {dtype!r} instead."
                )
        except BaseException:
            self.close()
            raise

    @property
    def dtype(self) -> str:
        """Data type of the vectors on disk: "float32", "float16" or "bfloat16"."""
        with self._read() as connection:
            row = connection.execute("SELECT dtype FROM store").fetchone()
            dtype = row[0].decode(errors="replace") if row else "nothing"
            if dtype not in DTYPES:
                raise DatabaseError(f"it keeps {dtype}")
            return str(dtype)

    @property
    def n_bytes(self) -> int:
        """Bytes that the store takes on disk, including free space in its files."""
        with self._read():
            found = [
                file.stat()
                for name in (f"{FILE_NAME}*", "vectors-*.bin")
                for file in self.path.glob(name)
            ]
        # Where the file system tells it: the file may have holes.
        return sum(512 * getattr(f, "st_blocks", 0) or f.st_size for f in found)

    def create(self) -> None:
        """Create the store's files, if they are not there, as writing does."""
        self._check_writable()
        with self._write():
            pass

    def register(self, model: str, **settings: Any) -> bytes:  # noqa: ANN401 - any JSON
        """Add a model and its settings, and return their key.

        Parameters
        ----------
        model : str
            Name of the model, with its revision if it has one.
        **settings : object
            Everything else that activations depend on, except for layer, part and
            pooling, as JSON values.

        Returns
        -------
        bytes
            Key of 16 bytes, which is equal only for equal models and settings.

        Raises
        ------
        TypeError
            If a setting is not a JSON value.
        """
        description = _settings.describe_settings(model, settings)
        key = _settings.digest_settings(description.encode())
        with self._read() as connection:
            is_new = not self.readonly and not _settings.are_described(connection, key)
        if is_new:
            with self._write() as connection:
                _settings.add_settings(connection, key, description)
        return key

    def __len__(self) -> int:
        """Count distinct prompts, once for each model and settings."""
        return sum(stored.n_prompts for stored in self.contents())

    def contents(self) -> list[StoredModel]:
        """List what the store holds.

        Returns
        -------
        list of StoredModel
            An item for each model and settings, sorted by model.
        """
        with self._read() as connection:
            return _settings.list_models(connection)

    def delete(self, model: str) -> int:
        """Delete all activations of a model, whatever its settings.

        Their space is used again by later writes. ``compact`` returns it to the disk.

        Parameters
        ----------
        model : str
            Name of the model, as given to ``register``.

        Returns
        -------
        int
            Number of prompts that were deleted.
        """
        self._check_writable()
        if all(stored.model != model for stored in self.contents()):
            return 0
        with self._write() as connection:
            before = _settings.list_models(connection)
            _settings.delete_model(connection, model)
        return sum(stored.n_prompts for stored in before if stored.model == model)

    def compact(self) -> None:
        """Rewrite the store without what was deleted or is damaged.

        Other processes can keep using the store; those that write wait. Until it is
        done, this takes up to twice the space of the store, in its folder and in the
        system's folder for temporary files.

        Raises
        ------
        StoreError
            If there is not enough space. The store is then not changed.
        """
        self._check_writable()
        with self._connect(creates=True) as connection:
            with begin(connection, write=True):
                kept = move_records(connection, self.path)
            connection.execute("VACUUM")
            # Waits for those who still read the former file.
            (is_busy, *_) = connection.execute(
                "PRAGMA wal_checkpoint(TRUNCATE)"
            ).fetchone()
        for former in self.path.glob("vectors-*.bin"):
            if former != kept and not is_busy:
                former.unlink()

    def close(self) -> None:
        """Close this object.

        When a process closes its last object of a store, its claims there end.
        """
        if not self._is_closed:
            self._is_closed = True
            close_database(self.path, self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"ActivationStore({str(self.path)!r}, readonly={self.readonly})"

    @property
    def _database(self) -> Database:
        """What this process has open. Not to be asked for inside a transaction.

        That holds a lock that was made later than the one of ``open_database``: a fork
        takes them in the order in which they were made.
        """
        if self._is_closed:
            raise StoreError(f"The activation store {str(self.path)!r} was closed.")
        return open_database(self.path, self)

    def _connect(self, *, creates: bool) -> AbstractContextManager[Connection]:
        dtype = self._asked_dtype or "float32"
        return self._database.connect(
            readonly=self.readonly, dtype=dtype, creates=creates
        )

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with self._connect(creates=False) as connection, begin(connection):
            yield connection

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with (
            self._connect(creates=True) as connection,
            begin(connection, write=True),
        ):
            yield connection

    def _check_writable(self) -> None:
        if self.readonly:
            raise StoreError(
                f"The activation store {str(self.path)!r} was opened with "
                "readonly=True. To change it, open it with readonly=False."
            )
