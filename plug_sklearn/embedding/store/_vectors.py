"""Vectors as bytes in the dtype of a store, and the file that contains them."""

import os
from contextlib import suppress
from io import FileIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

#: How each dtype is stored. NumPy has no bfloat16; its bits stand in an integer.
STORED = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}
DTYPES = tuple(STORED)

#: Bytes in a block of memory at most. An array that is kept keeps its block.
_BLOCK_SIZE = 2**25


def encode(states: NDArray[np.float32], dtype: str) -> NDArray[np.generic]:
    """Round states to the dtype that a store keeps.

    Raises
    ------
    FloatingPointError
        If a finite state is too large for it.
    """
    states = np.ascontiguousarray(states, dtype=np.float32)
    if dtype == "float32":
        return states
    if dtype == "bfloat16":
        rounded = torch.from_numpy(states).to(torch.bfloat16).view(torch.int16)
        encoded: NDArray[np.generic] = rounded.numpy().view(np.uint16)
    else:
        with np.errstate(over="ignore"):
            encoded = states.astype(np.float16)
    if np.isinf(decode(encoded, dtype)).sum() > np.isinf(states).sum():
        raise FloatingPointError(
            f"A state is too large for {dtype}: the largest is "
            f"{np.abs(states).max():.3g}. Use dtype='float32' in a new ActivationStore."
        )
    return encoded


def decode(encoded: NDArray[np.generic], dtype: str) -> NDArray[np.float32]:
    """Return states as float32 that a store keeps in another dtype."""
    if dtype != "bfloat16":
        return encoded.astype(np.float32, copy=False)
    return (encoded.astype(np.uint32) << 16).view(np.float32)


class Memory:
    """Memory for arrays that are kept, in blocks that several of them share.

    Many small arrays take much longer to get. A large block takes less time to get than
    several that are smaller: the operating system then uses huge pages.

    Parameters
    ----------
    n_items : int
        How many arrays there will be. One block is enough if they are of like size, and
        take less than 32 MB.
    """

    def __init__(self, n_items: int) -> None:
        self._n_items = n_items
        self._block = memoryview(b"")

    def take(self, size: int, n_items: int = 1) -> memoryview:
        """Return the memory of some of the arrays, of so many bytes."""
        if size > len(self._block):
            expected = size * self._n_items // n_items
            n_bytes = max(size, min(expected, _BLOCK_SIZE))
            self._block = np.empty(n_bytes, dtype=np.uint8).data
        taken, self._block = self._block[:size], self._block[size:]
        self._n_items -= n_items
        return taken


class VectorFile:
    """The file that holds the vectors of all records.

    Parameters
    ----------
    path : Path
        The file.
    end : int
        Bytes of it that are in use: where to append.
    write : bool
        Whether to append to it; it is then created if it is not there.
    """

    def __init__(self, path: Path, end: int, *, write: bool) -> None:
        self.end = end
        self._file: FileIO | None = None
        self._buffer = memoryview(b"")
        mode, flag = ("r+", os.O_CREAT) if write else ("r", 0)
        # Where the file is gone, all records are damaged.
        with suppress(FileNotFoundError):
            self._file = FileIO(
                path, mode, opener=lambda name, f: os.open(name, f | flag, 0o666)
            )

    def holds(
        self, starts: NDArray[np.int64], sizes: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Return which records can stand where they are said to."""
        return np.asarray((starts >= 0) & (sizes <= self.end - starts))

    def read(self, start: int, size: int, room: memoryview | None = None) -> memoryview:
        """Read a record, or several that stand one after another, into ``room``.

        Without it, they are overwritten when the next are read. Where the file is cut
        short or gone, the rest is zeros.
        """
        if room is None:
            if size > len(self._buffer):
                # One for all: new memory takes longer to get than to read into.
                self._buffer = memoryview(bytearray(size))
            room = self._buffer[:size]
        n_read = 0
        if self._file is not None:
            self._file.seek(start)
            # The operating system reads at most 2 GB at once; 0 is the end of the file.
            while n_read < size and (n_new := self._file.readinto(room[n_read:])):
                n_read += n_new
        if n_read < size:
            room[n_read:] = bytes(size - n_read)
        return room

    def append(self, vectors: bytes | memoryview) -> int:
        """Append a record, and give its start."""
        assert self._file is not None
        start = self._file.seek(self.end)
        left = memoryview(vectors)
        while left:
            left = left[self._file.write(left) :]
        self.end += len(vectors)
        return start

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
