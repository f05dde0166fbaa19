"""What goes wrong with a store, said in words that help."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import lmdb


class StoreError(OSError):
    """An activation store cannot be read or written; says why and what to do."""


def _match(*codes: str) -> tuple[str, ...]:
    numbers = (getattr(errno, code, None) for code in codes)
    return tuple(os.strerror(number) for number in numbers if number is not None)


# py-lmdb tells the operating system's errors by their text alone.
_FULL = _match("ENOSPC", "EDQUOT", "EFBIG", "EIO")
_FORBIDDEN = _match("EACCES", "EPERM", "EROFS")
_NO_FOLDER = _match("EEXIST", "ENOTDIR")
_DAMAGED = (
    lmdb.CorruptedError,
    lmdb.InvalidError,
    lmdb.PageNotFoundError,
    lmdb.VersionMismatchError,
)


@contextlib.contextmanager
def explain_errors(folder: Path) -> Iterator[None]:
    """Turn the errors of LMDB and of the operating system into ones that help."""
    try:
        yield
    except StoreError:
        raise
    except (lmdb.Error, OSError) as error:
        raise StoreError(_explain(folder, error)) from error


def _explain(folder: Path, error: Exception) -> str:
    text, store = str(error), f"the activation store {str(folder)!r}"
    if isinstance(error, _DAMAGED):
        return (
            f"The data file of {store} is damaged or not one of a store ({text}). "
            "Move the folder away or delete it; what it held is then computed again."
        )
    if any(reason in text for reason in _FULL):
        return (
            f"Cannot write {store}: the disk is full, or fails ({text}). What was "
            "written before is kept; make room and run again."
        )
    if is_forbidden(error):
        return (
            f"Not allowed to write {store} ({text}). Open it with readonly=True, or "
            "give this user the right to write in the folder."
        )
    if any(reason in text for reason in _NO_FOLDER):
        return f"Cannot open {store}: it must be a folder ({text}). Give another path."
    return f"Cannot use {store}: {text}."


def is_forbidden(error: Exception) -> bool:
    """Tell whether an error is one of the user's rights."""
    return any(reason in str(error) for reason in _FORBIDDEN)
