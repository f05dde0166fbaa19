"""Claims, so that each prompt is computed once over all threads and processes.

A claim is a row of the store that names the process which computes a prompt. It ends
when the prompt is written, when it is released, or when the process ends: a process
that claims holds a lock, which the operating system frees however the process ends.
"""

import os
import secrets
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

#: The byte that is locked by who creates a store; each other one is a process's own.
_CREATION = 0
_POLL = 0.005

if sys.platform == "win32":
    import msvcrt

    # The position that msvcrt locks at is a 32-bit number.
    _LAST_OWNER = 2**31 - 1

    def _try_lock(file: int, byte: int, *, shared: bool = False) -> bool:
        os.lseek(file, byte, os.SEEK_SET)
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(file: int, byte: int) -> None:
        os.lseek(file, byte, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    _LAST_OWNER = 2**62

    # Record locks, not flock: a forked child does not inherit them, so it cannot keep
    # alive what its dead parent had claimed.
    def _try_lock(file: int, byte: int, *, shared: bool = False) -> bool:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.lockf(file, kind | fcntl.LOCK_NB, 1, byte)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def _unlock(file: int, byte: int) -> None:
        fcntl.lockf(file, fcntl.LOCK_UN, 1, byte)


class ProcessLocks:
    """Locks on bytes of a file: each process that claims locks one, its number.

    A process must have one object for a file: closing any of its file descriptors
    frees all of the process's locks on it.

    Parameters
    ----------
    path : Path
        The file to lock. Nothing is written into it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None
        self._pid = 0
        self._owner: int | None = None

    @contextmanager
    def hold_creation(self) -> Iterator[None]:
        """Keep other processes from creating the store meanwhile."""
        file = self._open()
        # Not a lock that waits: the system takes threads that wait in two stores for
        # a deadlock.
        while not _try_lock(file, _CREATION):
            time.sleep(_POLL)
        try:
            yield
        finally:
            _unlock(file, _CREATION)

    def get_owner(self) -> int:
        """Return the number of this process, whose byte it locks."""
        file = self._open()
        while self._owner is None:
            number = 1 + secrets.randbelow(_LAST_OWNER - 1)
            if _try_lock(file, number):
                self._owner = number
        return self._owner

    def is_alive(self, owner: int) -> bool:
        """Return whether a process still runs and has the store open."""
        if not (isinstance(owner, int) and _CREATION < owner < _LAST_OWNER):
            return False
        if not self.path.exists():
            return False
        file = self._open()
        return owner == self._owner or _is_locked(file, owner)

    def resign(self) -> None:
        """Give up this process's number, and with it all that it claimed."""
        if self._owner is not None:
            _unlock(self._open(), self._owner)
            self._owner = None

    def close(self) -> None:
        """Free all locks."""
        if self._file is not None:
            os.close(self._file)
        self._file = self._owner = None

    def _open(self) -> int:
        # A forked child has none of its parent's locks. A deleted file is nobody's.
        if self._file is not None and (
            self._pid != os.getpid() or os.fstat(self._file).st_nlink == 0
        ):
            self.close()
        if self._file is None:
            try:
                self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError:
                # Who may only read the store can still see who has claimed.
                self._file = os.open(self.path, os.O_RDONLY)
            self._pid = os.getpid()
        return self._file


def _is_locked(file: int, byte: int) -> bool:
    if not _try_lock(file, byte, shared=True):
        return True
    _unlock(file, byte)
    return False


def take_claims(
    connection: sqlite3.Connection,
    locks: ProcessLocks,
    digests: Mapping[bytes, bytes],
    is_held: Callable[[bytes], bool],
    at_most: int | None,
) -> list[bytes]:
    """Claim prompts that are neither held nor claimed, up to a number of them.

    ``digests`` gives the digest of each prompt; returns those of the claimed ones.
    """
    owner, is_taken = locks.get_owner(), _remember_living(locks)
    mine: list[bytes] = []
    for prompt, digest in digests.items():
        if at_most is not None and len(mine) >= at_most:
            break
        if is_taken(_read_owner(connection, prompt)) or is_held(digest):
            continue
        connection.execute("REPLACE INTO claims VALUES (?, ?)", (prompt, owner))
        mine.append(digest)
    return mine


def delete_claims(
    connection: sqlite3.Connection, locks: ProcessLocks, prompts: Iterable[bytes]
) -> None:
    """Delete this process's claims on prompts."""
    owner = locks.get_owner()
    connection.executemany(
        "DELETE FROM claims WHERE prompt = ? AND owner = ?",
        ((prompt, owner) for prompt in prompts),
    )


def skip_free(
    connection: sqlite3.Connection, locks: ProcessLocks, prompts: list[bytes]
) -> None:
    """Drop prompts from the end of a list until one that a living process claims."""
    is_taken = _remember_living(locks)
    while prompts and not is_taken(_read_owner(connection, prompts[-1])):
        prompts.pop()


def _read_owner(connection: sqlite3.Connection, prompt: bytes) -> int | None:
    found = connection.execute("SELECT owner FROM claims WHERE prompt = ?", (prompt,))
    row: tuple[int] | None = found.fetchone()
    return None if row is None else row[0]


def _remember_living(locks: ProcessLocks) -> Callable[[int | None], bool]:
    """Make a function that tells whether a claim counts, asking once per process."""
    living: dict[int, bool] = {}

    def is_taken(owner: int | None) -> bool:
        if owner is None:
            return False
        if owner not in living:
            living[owner] = locks.is_alive(owner)
        return living[owner]

    return is_taken
