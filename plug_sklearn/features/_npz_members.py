"""The arrays of a ``.npz`` file, whose sizes are checked before they are unpacked."""

from math import prod
from typing import Any, BinaryIO, NamedTuple
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

_METHODS = {ZIP_STORED, ZIP_DEFLATED}
_MAGIC = b"PK\x03\x04"
#: Activations hardly compress. Small files may unpack to much more than they are.
_MOST_UNPACKED = 200
_ALWAYS_UNPACKED = 2**26

_READ_HEADER = {
    (1, 0): npy.read_array_header_1_0,
    (2, 0): npy.read_array_header_2_0,
}


class Header(NamedTuple):
    """What an array is, as the beginning of its member says.

    Parameters
    ----------
    shape : tuple of int
        Its shape.
    dtype : dtype
        Its type; objects are a pickle.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def open_archive(stream: BinaryIO, keys: tuple[str, ...]) -> ZipFile:
    """Open a ``.npz`` file, and check how much its arrays will be.

    Parameters
    ----------
    stream : binary file
        The file.
    keys : tuple of str
        Names of the arrays that it must hold.

    Returns
    -------
    ZipFile
        Open.

    Raises
    ------
    ValueError
        If it is no such file, lacks an array, or its arrays would be far larger than
        the file.
    """
    if stream.read(len(_MAGIC)) != _MAGIC:
        raise ValueError("it is no npz file")
    n_bytes = stream.seek(0, 2)
    archive = ZipFile(stream)
    members = {info.filename: info.file_size for info in archive.infolist()}
    # zipfile reads other methods without a bound on memory. numpy writes none of them.
    if {info.compress_type for info in archive.infolist()} - _METHODS:
        raise ValueError("it is compressed by a method that numpy does not use")
    if {f"{key}.npy" for key in keys} - set(members):
        raise ValueError(f"it must hold {', '.join(keys)}")
    # zipfile reads no more of a member than this, whatever the member holds.
    unpacked = sum(members[f"{key}.npy"] for key in keys)
    most = max(_ALWAYS_UNPACKED, _MOST_UNPACKED * n_bytes)
    if unpacked > most:
        raise ValueError(
            f"its {n_bytes} bytes would unpack to {unpacked}, where at most {most} are "
            "taken"
        )
    return archive


def read_header(archive: ZipFile, key: str) -> Header:
    """Read what an array is, and check that it has as many bytes.

    Parameters
    ----------
    archive : ZipFile
        From ``open_archive``.
    key : str
        Name of the array.

    Returns
    -------
    Header
        Its shape and type.

    Raises
    ------
    ValueError
        If it is none, or longer or shorter than its header says.
    """
    with archive.open(f"{key}.npy") as member:
        version = npy.read_magic(member)
        if version not in _READ_HEADER:
            raise ValueError(f"its {key} has a header of an unknown version {version}")
        shape, _, dtype = _READ_HEADER[version](member)
        n_left = archive.getinfo(f"{key}.npy").file_size - member.tell()
    if any(length < 0 for length in shape):
        raise ValueError(f"its {key} has the shape {shape}")
    # How long a pickle is, no header says.
    if not dtype.hasobject and n_left != dtype.itemsize * prod(shape):
        raise ValueError(f"its {key} is not as long as {shape} of {dtype} are")
    return Header(shape, dtype)


def read_member(
    archive: ZipFile, key: str, *, allow_pickle: bool = False
) -> NDArray[Any]:
    """Read an array whose header is right.

    Parameters
    ----------
    archive : ZipFile
        From ``open_archive``.
    key : str
        Name of the array.
    allow_pickle : bool, default=False
        Whether it may be a pickle.

    Returns
    -------
    ndarray
        The array.
    """
    with archive.open(f"{key}.npy") as member:
        array: NDArray[Any] = npy.read_array(member, allow_pickle=allow_pickle)
        # zipfile compares the checksum at the end.
        if member.read(1):
            raise ValueError(f"its {key} is longer than its header says")
    return array
