"""Activations that tell whose they are, and processes that share a store."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from plug_sklearn.embedding import ActivationStore

HIDDEN_SIZE = 8
PARTS = ("rs", "attn", "mlp")

_context = multiprocessing.get_context("forkserver")
# Children are forked from a process that has read the package, and no store.
_context.set_forkserver_preload(["plug_sklearn.embedding", "pytest"])


def digest(number: int) -> bytes:
    return blake2b(b"prompt %d" % number, digest_size=16).digest()


def digests(numbers: Sequence[int]) -> list[bytes]:
    return [digest(number) for number in numbers]


def make_states(
    numbers: Sequence[int],
    layers: Sequence[int] = (0, 1),
    parts: Sequence[str] = ("rs",),
    hidden_size: int = HIDDEN_SIZE,
) -> NDArray[np.float32]:
    """Each state says its prompt, layer, part and unit."""
    states = np.array(numbers, dtype=np.float32).reshape(-1, 1, 1, 1) * 64
    states = states + np.array(layers).reshape(-1, 1, 1) * 8
    states = states + np.array([PARTS.index(p) for p in parts]).reshape(-1, 1) * 2
    return (states + np.linspace(0, 1, hidden_size)).astype(np.float32)


def read(
    store: ActivationStore,
    settings: bytes,
    numbers: Sequence[int],
    layers: Sequence[int] = (0, 1),
    parts: Sequence[str] = ("rs",),
    hidden_size: int = HIDDEN_SIZE,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    shape = (len(numbers), len(layers), len(parts), hidden_size)
    out = np.full(shape, np.nan, dtype=np.float32)
    missing = store.read_into(settings, digests(numbers), layers, parts, out)
    return out, missing


def holds_right(
    store: ActivationStore, settings: bytes, numbers: Sequence[int]
) -> bool:
    """Whether all of some prompts are held, and as they should be."""
    out, missing = read(store, settings, numbers)
    return not missing.any() and bool((out == make_states(numbers)).all())


VECTORS, TABLES = "vectors-0.bin", "activations.sqlite"


def flip_bytes(path: Path, wanted: bytes, flipped: int = 0xFF) -> None:
    """Change the byte of a file before which some bytes first stand."""
    data = path.read_bytes()
    assert wanted in data
    place = data.index(wanted) + len(wanted) - 1
    with path.open("r+b") as file:
        file.seek(place)
        file.write(bytes([data[place] ^ flipped]))


@contextmanager
def started(
    work: Callable[..., None], *arguments: object
) -> Iterator[tuple[BaseProcess, Connection]]:
    """Run a function of a pipe and arguments in another process."""
    here, there = _context.Pipe()
    process = _context.Process(target=work, args=(there, *arguments), daemon=True)
    process.start()
    there.close()
    try:
        yield process, here
    finally:
        process.kill()
        process.join()
        process.close()
        here.close()
