"""Which processes use a store, told by locks that end with the process.

Every process that uses a store locks bytes of one file in its folder: byte 0 shared,
and, if it computes for others, a byte of its own choice whose number is its name. The
operating system frees them when the process ends, however it ends. Nothing is written
into the file.
"""

import os
import secrets
import sys
from pathlib import Path

if sys.platform == "win32":
    import msvcrt

    # The position that msvcrt locks at is a 32-bit number.
    _LAST_BYTE = 2**31 - 2

    def _try_lock(file: int, byte: int, *, shared: bool = False) -> bool:
        # There are no shared locks. They keep a data file from being replaced, which
        # Windows does by itself while the file is mapped.
        if shared and byte == 0:
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

    def _wait_for_lock(file: int, byte: int) -> None:
        pass

else:
    import fcntl

    _LAST_BYTE = 2**62

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

    def _wait_for_lock(file: int, byte: int) -> None:
        fcntl.lockf(file, fcntl.LOCK_SH, 1, byte)


class Presence:
    """The place of this process among those that use a store.

    A process must have one a store at most: closing any file descriptor of the locked
    file frees all of the process's locks on it.

    Parameters
    ----------
    path : Path
        The file to lock.
    readonly : bool
        Whether the file may only be read; it may then be absent.
    """

    def __init__(self, path: Path, *, readonly: bool) -> None:
        self._claimant: int | None = None
        self._file: int | None = None
        flags = os.O_RDONLY if readonly else os.O_RDWR | os.O_CREAT
        try:
            self._file = os.open(path, flags | getattr(os, "O_CLOEXEC", 0), 0o666)
        except OSError:
            if not readonly:
                raise
        else:
            _wait_for_lock(self._file, 0)

    def name_claimant(self) -> int:
        """Give the number that this process claims under, its byte locked."""
        while self._claimant is None:
            number = 1 + secrets.randbelow(_LAST_BYTE)
            if _try_lock(self._opened, number):
                self._claimant = number
        return self._claimant

    @property
    def has_claimed(self) -> bool:
        """Whether this process has a number that it claims under."""
        return self._claimant is not None

    def is_alive(self, claimant: int) -> bool:
        """Tell whether the process that claims under a number still runs."""
        if claimant == self._claimant:
            return True
        if self._file is None or not 1 <= claimant <= _LAST_BYTE:
            return False
        if not _try_lock(self._file, claimant, shared=True):
            return True
        _unlock(self._file, claimant)
        return False

    def resign(self) -> None:
        """Give up this process's number, and with it all that it claimed."""
        if self._claimant is not None:
            _unlock(self._opened, self._claimant)
            self._claimant = None

    def exclude_others(self) -> bool:
        """Try to become the only process that uses the store."""
        return _try_lock(self._opened, 0)

    def admit_others(self) -> None:
        """Undo ``exclude_others``."""
        _try_lock(self._opened, 0, shared=True)

    def close(self) -> None:
        """Free all locks."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    @property
    def _opened(self) -> int:
        if self._file is None:
            raise OSError("The store's folder may only be read.")
        return self._file
