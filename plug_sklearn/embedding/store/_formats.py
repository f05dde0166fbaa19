"""What a store says of itself: the number of its format, and what it keeps."""

import json
from pathlib import Path

import lmdb

from plug_sklearn.embedding.store._failures import StoreError

#: The one format that is written and read. The first had other checksums.
FORMAT = 2
FORMAT_KEY = b"format"


def write_format(dtype: str) -> bytes:
    """Describe a new store."""
    return json.dumps({"format": FORMAT, "dtype": dtype}).encode()


def read_format(folder: Path, text: bytes | None) -> str:
    """Read what a store says of itself.

    Parameters
    ----------
    folder : Path
        The store's.
    text : bytes or None
        What ``write_format`` gave; None if the data file has nothing of it.

    Returns
    -------
    str
        The dtype that the store keeps.

    Raises
    ------
    StoreError
        If it is not a store, or one of another format.
    CorruptedError
        If the text cannot be read.
    """
    if text is None:
        raise StoreError(
            f"The data file in {str(folder)!r} is not one of an activation store. Give "
            "the path of another folder."
        )
    try:
        found = json.loads(text)
        number, dtype = int(found["format"]), str(found["dtype"])
    except (ValueError, TypeError, KeyError) as error:
        raise lmdb.CorruptedError("it does not tell its format") from error
    if number != FORMAT:
        raise StoreError(
            f"The activation store {str(folder)!r} has format {number}, and this "
            f"version of plug_sklearn reads format {FORMAT}. Give another path, or "
            f"install {'a newer' if number > FORMAT else 'an older'} version."
        )
    return dtype
