"""The SQLite file of a store: opened for each call, created, and its errors explained.

=========  =====================================================================
table      one row
=========  =====================================================================
store      what the store keeps: its dtype; which file has the vectors, and how
           many bytes of it are in use
settings   a model and its settings, as JSON, with the digest that names them
layouts    what a record holds, as JSON: dtype, hidden size and slots. A slot is
           a layer, a part and a pooling; a pooling of null is reserved for one
           vector per token
records    where the vectors of one prompt stand in the file, and their checksum
claims     a prompt that a process is computing
=========  =====================================================================

Vectors stand in a file of their own, ``vectors-0.bin`` at first, which reads as fast as
a memory map. They are appended to it inside a transaction of SQLite. What is appended
by a process that is killed before the end is not in use, and is written over.
"""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from weakref import WeakSet

from plug_sklearn._forks import make_lock
from plug_sklearn.embedding.store._claims import ProcessLocks

FILE_NAME = "activations.sqlite"
#: The format that is written and read. Formats 1 and 2 were kept by LMDB.
FORMAT = 3
#: Marks a SQLite file as one of this package: "PLUG".
APPLICATION_ID = 0x504C5547

_LMDB_FILE_NAME = "data.mdb"
#: What may be in a folder in which a store is created: what other processes write that
#: create it too, what is left of a store that was deleted, and hidden files.
_OWN_FILES = (
    f"{FILE_NAME}*",
    "new.sqlite*",
    "claims.lock*",
    "local_files.json*",
    "vectors-*.bin",
    ".*",
)
#: How long to wait for other processes' transactions, in seconds.
_PATIENCE = 600

_SCHEMA = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
CREATE TABLE store (
    dtype TEXT NOT NULL, generation INTEGER NOT NULL, n_bytes INTEGER NOT NULL
);
CREATE TABLE settings (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, description TEXT NOT NULL
);
CREATE TABLE layouts (id INTEGER PRIMARY KEY, description TEXT NOT NULL);
CREATE TABLE records (
    settings INTEGER NOT NULL,
    digest BLOB NOT NULL,
    layout INTEGER NOT NULL,
    start INTEGER NOT NULL,
    size INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (settings, digest, layout)
) WITHOUT ROWID;
CREATE TABLE claims (prompt BLOB PRIMARY KEY, owner INTEGER NOT NULL) WITHOUT ROWID;
"""


class StoreError(OSError):
    """Raised if an activation store cannot be used; says why, and what to do."""


class Database:
    """The file of one store, as this process uses it: by one thread at a time.

    Each call opens a connection and closes it again while it holds a lock that a fork
    waits for. No connection is ever open while the process forks: SQLite forbids that.

    Parameters
    ----------
    folder : Path
        Where the store is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.locks = ProcessLocks(folder / "claims.lock")
        self.users: WeakSet[object] = WeakSet()
        self._lock = make_lock()

    @contextmanager
    def connect(
        self, *, readonly: bool, dtype: str, creates: bool = True
    ) -> Iterator[sqlite3.Connection]:
        """Open the file.

        If it is not there, it is created with a dtype; or, unless ``creates``, what is
        opened is empty, and no file.
        """
        with self._lock, _explain_errors(self.folder):
            path = self.folder / FILE_NAME
            if not path.exists():
                self._check_place(readonly=readonly)
                if not creates:
                    with closing(_make_empty(":memory:", dtype)) as connection:
                        yield connection
                    return
                self._create(path, dtype)
            connection = _open_readonly(path) if readonly else _open(path)
            with closing(connection):
                _check_format(connection, self.folder)
                yield connection

    def _check_place(self, *, readonly: bool) -> None:
        """Refuse a folder in which no store can be created."""
        if (self.folder / _LMDB_FILE_NAME).exists():
            raise StoreError(
                f"The activation store {str(self.folder)!r} was written by an earlier "
                "version of plug_sklearn, in a format that this version does not "
                "read. Give another path, where the activations are computed again, "
                "or install the earlier version. The folder was not changed."
            )
        if readonly:
            raise StoreError(
                f"There is no activation store in {str(self.folder)!r}. Open it "
                "without readonly=True to create one."
            )
        for place in (self.folder, *self.folder.parents):
            if place.exists() and not place.is_dir():
                raise NotADirectoryError(
                    errno.ENOTDIR, "Not a directory", os.fspath(place)
                )
        if not self.folder.exists():
            return
        foreign = sorted(
            file.name
            for file in self.folder.iterdir()
            if not any(file.match(pattern) for pattern in _OWN_FILES)
        )
        if foreign:
            raise StoreError(
                f"There is no activation store in {str(self.folder)!r}, and none is "
                f"created among other files, such as {foreign[0]!r}. Give the path of "
                "a new or an empty folder."
            )

    def _create(self, path: Path, dtype: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.locks.hold_creation():
            if path.exists():
                return
            # A process that was killed here may have left its own attempt.
            for leftover in self.folder.glob("new.sqlite*"):
                leftover.unlink()
            new = self.folder / "new.sqlite"
            with closing(_make_empty(new, dtype)) as connection:
                # The mode is a property of the file. Readers and a writer do not wait
                # for each other.
                connection.execute("PRAGMA journal_mode = WAL")
            new.replace(path)


def _make_empty(path: str | Path, dtype: str) -> sqlite3.Connection:
    """Make the tables of a store that holds nothing."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.text_factory = bytes
    connection.executescript(_SCHEMA)
    connection.execute("INSERT INTO store VALUES (?, 0, 0)", (dtype,))
    return connection


@contextmanager
def begin(
    connection: sqlite3.Connection, *, write: bool = False
) -> Iterator[sqlite3.Connection]:
    """Run a block as one transaction, which is rolled back if the block fails."""
    connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        # SQLite has already rolled back after some errors, such as a full disk.
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _open(path: Path) -> sqlite3.Connection:
    # SQLite would open a file without the right to write, and fail later.
    for needed in (path.parent, path):
        if not os.access(needed, os.W_OK):
            raise PermissionError(errno.EACCES, "Permission denied", str(needed))
    return _connect(path, "mode=rw")


def _open_readonly(path: Path) -> sqlite3.Connection:
    try:
        return _connect(path, "mode=ro")
    except sqlite3.OperationalError:
        wal = path.with_name(f"{path.name}-wal")
        if os.access(path.parent, os.W_OK) or (wal.exists() and wal.stat().st_size):
            raise
        # A folder without the right to write has no place for SQLite's locks.
        return _connect(path, "immutable=1")


def _connect(path: Path, how: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.as_uri()}?{how}", uri=True, timeout=_PATIENCE, isolation_level=None
    )
    try:
        # A damaged text need not be UTF-8.
        connection.text_factory = bytes
        # A power cut may then lose the last transactions, and nothing else.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
    except (sqlite3.Error, UnicodeDecodeError):
        connection.close()
        raise
    return connection


def _check_format(connection: sqlite3.Connection, folder: Path) -> None:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (number,) = connection.execute("PRAGMA user_version").fetchone()
    if application_id != APPLICATION_ID:
        raise StoreError(
            f"The file {FILE_NAME!r} in {str(folder)!r} is not the file of an "
            "activation store. Give the path of another folder."
        )
    if number != FORMAT:
        raise StoreError(
            f"The activation store {str(folder)!r} has format {number}, and this "
            f"version of plug_sklearn reads format {FORMAT}. Give another path, or "
            f"install {'a newer' if number > FORMAT else 'an older'} version."
        )


@contextmanager
def _explain_errors(folder: Path) -> Iterator[None]:
    """Turn the errors of SQLite and of the operating system into ones that help."""
    try:
        yield
    except StoreError:
        raise
    # Python cannot decode what SQLite says of tables whose names are damaged.
    except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
        raise StoreError(_explain(folder, error)) from error


def _explain(folder: Path, error: Exception) -> str:
    store, text = f"the activation store {str(folder)!r}", str(error)
    number = getattr(error, "errno", None)
    # The low byte is the kind of error, the others say more.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR) or number in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EIO,
    ):
        return (
            f"Cannot write {store}: the disk is full, or fails ({text}). What was "
            "written before is kept. Free some disk space and run again."
        )
    if code in (
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
    ) or isinstance(error, PermissionError):
        return (
            f"Not allowed to write {store} ({text}). Open it with readonly=True, or "
            "give this user the right to write in the folder."
        )
    if isinstance(error, FileExistsError | NotADirectoryError):
        return f"Cannot open {store}: it must be a folder ({text}). Give another path."
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return (
            f"Cannot use {store}: another process has kept it locked for {_PATIENCE} "
            f"seconds ({text}). End that process, or wait for it."
        )
    if isinstance(error, sqlite3.Error):
        return (
            f"The file of {store} is damaged, or is not the file of a store ({text}). "
            "Move the folder away or delete it. Its activations are then computed "
            "again."
        )
    return f"Cannot use {store}: {text}."
