"""The files of an artifact: their names, JSON that is only data, and whole writes."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any
from uuid import uuid4

SUFFIXES = (".safetensors", ".json", ".pt", ".pth")

# A file may hold anything; a message that quotes it is to be read.
_MOST_SAID = 1000


class Refusal(ValueError):
    """A file that is not loaded; names it and says why."""


def name_file(path: str | os.PathLike[str], suffix: str) -> Path:
    """Name a file of the artifact at ``path``, which may end in a suffix of one."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(
            "The 'path' of an artifact must be a str or a Path. Got "
            f"{type(path).__name__} instead."
        )
    whole = Path(path)
    if whole.name in ("", ".."):
        raise ValueError(
            "The 'path' of an artifact must end in the name of its two files, without "
            f"their suffixes. Got {str(path)!r} instead."
        )
    stem = whole.stem if whole.suffix in SUFFIXES else whole.name
    return whole.with_name(stem + suffix)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Begin the message of a ValueError with the file that it is about."""
    try:
        yield
    except Refusal:
        raise
    except ValueError as error:
        why = str(error).removesuffix(".")
        if len(why) > _MOST_SAID:
            half = _MOST_SAID // 2
            why = f"{why[:half]} ... {why[-half:]}"
        raise Refusal(f"{path} cannot be loaded: {why}.") from error


def write_file(path: Path, data: bytes) -> None:
    """Write a file so that at any moment the old one or the new one is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_name(f"{path.name}.{uuid4().hex}")
    try:
        with written.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        written.replace(path)
    except BaseException:
        written.unlink(missing_ok=True)
        raise


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    ValueError
        If it is none; or has a key twice, a number that is not finite, or is nested
        beyond reason.
    """
    try:
        found = json.loads(
            path.read_bytes(),
            object_pairs_hook=_make_object,
            parse_constant=_refuse_constant,
            parse_float=_parse_float,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("it holds no JSON object")
    return found


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError(f"it has a key twice in an object of {sorted(made)}")
    return made


def _refuse_constant(name: str) -> float:
    raise ValueError(f"it holds {name}, which is no JSON")


def _parse_float(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise ValueError(f"it holds the number {text}, which is too large")
    return value
