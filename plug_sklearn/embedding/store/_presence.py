"""Which processes use a store, and who may write, told by locks that end with them.

Every process that uses a store locks bytes of one file in its folder; the operating
system frees them when the process ends, however it ends. Nothing is written into it.

byte 0
    shared by all users, so that none replaces the data file under the others.
byte 1
    the writer's. LMDB has a mutex for it, but one that can sleep for ever when a
    process that was about to take it is killed: the mutex has lost that others wait.
    Who holds this byte finds the mutex free.
byte 2
    held while LMDB is entered or left, for the same reason: it guards the list of
    readers by such a mutex.
all others
    one for each process that computes for others; its number is the process's name.
"""

import errno
import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_USERS, _WRITER, _GATE, _FIRST_CLAIMANT = range(4)

if sys.platform == "win32":
    import msvcrt

    # The position that msvcrt locks at is a 32-bit number.
    _LAST_CLAIMANT = 2**31 - 1

    def _try_lock(file: int, byte: int, *, shared: bool = False) -> bool:
        # There are no shared locks. They keep a data file from being replaced, which
        # Windows does by itself while the file is mapped.
        if shared and byte == _USERS:
            return True
        os.lseek(file, byte, os.SEEK_SET)
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(file: int, byte: int) -> None:
        os.lseek(file, byte, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)

    def _wait_for_lock(file: int, byte: int, *, shared: bool = False) -> None:
        while not _try_lock(file, byte, shared=shared):
            time.sleep(0.001)

else:
    import fcntl

    _LAST_CLAIMANT = 2**62

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

    def _wait_for_lock(file: int, byte: int, *, shared: bool = False) -> None:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        while True:
            try:
                fcntl.lockf(file, kind, 1, byte)
            except OSError as error:
                # The system takes threads that wait in two stores for a deadlock.
                if error.errno != errno.EDEADLK:
                    raise
                time.sleep(0.001)
            else:
                return


class Presence:
    """The place of this process among those that use a store.

    A process must have one a store at most: closing any file descriptor of the locked
    file frees all of the process's locks on it.

    Parameters
    ----------
    path : Path
        The file to lock.
    readonly : bool
        Whether it may be that the file cannot be written, or is not there.
    """

    def __init__(self, path: Path, *, readonly: bool) -> None:
        self._claimant: int | None = None
        self._file, self._is_writable = _open_file(path, readonly=readonly)
        if self._file is not None:
            _wait_for_lock(self._file, _USERS, shared=True)

    @contextmanager
    def at_gate(self) -> Iterator[None]:
        """Keep other processes from entering or leaving LMDB meanwhile."""
        with self._hold(_GATE):
            yield

    @contextmanager
    def as_writer(self) -> Iterator[None]:
        """Keep other processes from writing meanwhile."""
        with self._hold(_WRITER):
            yield

    @property
    def has_claimed(self) -> bool:
        """Whether this process has a number that it claims under."""
        return self._claimant is not None

    def name_claimant(self) -> int:
        """Give the number that this process claims under, its byte locked."""
        while self._claimant is None:
            free = _LAST_CLAIMANT - _FIRST_CLAIMANT
            number = _FIRST_CLAIMANT + secrets.randbelow(free)
            if _try_lock(self._writable_file, number):
                self._claimant = number
        return self._claimant

    def is_alive(self, claimant: int) -> bool:
        """Tell whether the process that claims under a number still runs."""
        if claimant == self._claimant:
            return True
        if self._file is None or not _FIRST_CLAIMANT <= claimant < _LAST_CLAIMANT:
            return False
        if not _try_lock(self._file, claimant, shared=True):
            return True
        _unlock(self._file, claimant)
        return False

    def resign(self) -> None:
        """Give up this process's number, and with it all that it claimed."""
        if self._claimant is not None:
            _unlock(self._writable_file, self._claimant)
            self._claimant = None

    def exclude_others(self) -> bool:
        """Try to become the only process that uses the store."""
        return _try_lock(self._writable_file, _USERS)

    def admit_others(self) -> None:
        """Undo ``exclude_others``."""
        _wait_for_lock(self._writable_file, _USERS, shared=True)

    def close(self) -> None:
        """Free all locks."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    @contextmanager
    def _hold(self, byte: int) -> Iterator[None]:
        # Who cannot write into the folder uses LMDB without its mutexes.
        if self._file is None or not self._is_writable:
            yield
            return
        _wait_for_lock(self._file, byte)
        try:
            yield
        finally:
            _unlock(self._file, byte)

    @property
    def _writable_file(self) -> int:
        if self._file is None or not self._is_writable:
            raise OSError("The store's folder may only be read.")
        return self._file


def _open_file(path: Path, *, readonly: bool) -> tuple[int | None, bool]:
    close_on_exec = getattr(os, "O_CLOEXEC", 0)
    if not readonly:
        return os.open(path, os.O_RDWR | os.O_CREAT | close_on_exec, 0o666), True
    for flags, is_writable in ((os.O_RDWR, True), (os.O_RDONLY, False)):
        try:
            return os.open(path, flags | close_on_exec), is_writable
        except OSError:
            continue
    return None, False
