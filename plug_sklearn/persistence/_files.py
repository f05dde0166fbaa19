"""The two files of an artifact: names, strict JSON, tensors, and atomic writes."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]

SUFFIXES = (".safetensors", ".json", ".pt", ".pth")
_TYPES = {"float32": "F32", "float64": "F64", "int64": "I64"}
#: Characters of a message that quotes a file, which may hold anything.
_LONGEST_MESSAGE = 1000


class Refusal(ValueError):
    """The error of a file that is not loaded, with its name and the reason."""


def name_file(path: str | os.PathLike[str], suffix: str) -> Path:
    """Return the path of a file of an artifact, whose path may end in any suffix."""
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


def refuse_other_file(path: Path) -> None:
    """Explain why an existing path is not an artifact, and what to pass instead."""
    if not path.exists():
        return
    found, hint = "a file of another kind", "joblib.load reads pickles"
    if path.is_dir():
        names = sorted(file.stem for file in path.glob("*.json"))
        found = "a folder"
        hint = f"the artifacts in it are {names}" if names else "it holds no artifact"
    raise ValueError(
        "The 'path' given to load_artifacts must be that of two files, such as "
        f"'probe' for probe.safetensors and probe.json. Got {str(path)!r} instead, "
        f"which is {found}; {hint}."
    )


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the name of a file to the message of a ValueError about its content."""
    try:
        yield
    except Refusal:
        raise
    except ValueError as error:
        why = str(error).removesuffix(".")
        if len(why) > _LONGEST_MESSAGE:
            half = _LONGEST_MESSAGE // 2
            why = f"{why[:half]} ... {why[-half:]}"
        raise Refusal(f"{path} cannot be loaded: {why}.") from error


def write_file(path: Path, data: bytes) -> None:
    """Replace a file atomically: at any moment, the old or the new one is complete."""
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
    """Read a JSON object with distinct keys and finite numbers."""
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
        raise ValueError("it does not hold a JSON object")
    return found


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError(
            f"it has a duplicate key in an object with the keys {sorted(made)}"
        )
    return made


def _refuse_constant(name: str) -> float:
    raise ValueError(f"it holds {name}, which is not JSON")


def _parse_float(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise ValueError(f"it holds the number {text}, which is too large")
    return value


class Expected(NamedTuple):
    """Shape and dtype that a tensor must have."""

    shape: tuple[int, ...]
    dtype: str = "float32"


def write_tensors(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the bytes of a safetensors file."""
    # ascontiguousarray would add an axis to an array without any.
    contiguous = {name: np.array(array, order="C") for name, array in arrays.items()}
    return safetensors.numpy.save(contiguous)


def read_tensors(data: bytes, expected: Mapping[str, Expected]) -> Arrays:
    """Read copies of exactly the expected arrays from the bytes of a file."""
    try:
        found = dict(safetensors.deserialize(data))  # type: ignore[no-untyped-call]  # safetensors leaves it untyped
    except safetensors.SafetensorError as error:
        raise ValueError(f"it is not a complete safetensors file ({error})") from None
    for what, names in (
        ("lacks", set(expected) - set(found)),
        ("has unknown", set(found) - set(expected)),
    ):
        if names:
            raise ValueError(f"it {what} tensors: {sorted(names)}")
    for name, must_be in expected.items():
        shape, kind = tuple(found[name]["shape"]), found[name]["dtype"]
        if (shape, kind) != (must_be.shape, _TYPES[must_be.dtype]):
            raise ValueError(
                f"its tensor {name!r} must be {must_be.shape} of {must_be.dtype}, as "
                f"in the JSON. Got {shape} of {kind} instead"
            )
    arrays = {
        name: np.frombuffer(found[name]["data"], must_be.dtype).reshape(must_be.shape)
        for name, must_be in expected.items()
    }
    check_values(arrays)
    return {name: array.copy() for name, array in arrays.items()}


def check_values(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Raise a ValueError if a value is not finite, or a variance is negative."""
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"its tensor {name!r} must be finite")
        if name.endswith("var") and (array < 0).any():
            raise ValueError(f"its tensor {name!r} must be variances of 0 or more")
