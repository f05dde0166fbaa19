"""Arrays by name ⇄ the bytes of a safetensors file, checked before they are used."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]

_TYPES = {"float32": "F32", "float64": "F64", "int64": "I64"}


@dataclass(frozen=True)
class Expected:
    """What a tensor must be.

    Attributes
    ----------
    shape : tuple of int
        Its shape.
    dtype : {"float32", "float64", "int64"}
        Its type.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"


def write_tensors(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Give the bytes of a safetensors file that holds arrays."""
    # Of no axes, an array would get one from ascontiguousarray.
    contiguous = {name: np.array(array, order="C") for name, array in arrays.items()}
    return safetensors.numpy.save(contiguous)


def read_tensors(data: bytes, expected: Mapping[str, Expected]) -> Arrays:
    """Read arrays, all that are expected and no other.

    Parameters
    ----------
    data : bytes
        Of a safetensors file.
    expected : dict of Expected
        By name.

    Returns
    -------
    dict of ndarray
        Copies.

    Raises
    ------
    ValueError
        If the bytes are no such file, a tensor is missing or one too many, of another
        shape or dtype, or not finite.
    """
    try:
        found = dict(safetensors.deserialize(data))  # type: ignore[no-untyped-call]  # safetensors leaves it untyped
    except safetensors.SafetensorError as error:
        raise ValueError(f"it is no whole safetensors file ({error})") from None
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
                f"the JSON has it. Got {shape} of {kind} instead"
            )
    arrays = {
        name: np.frombuffer(found[name]["data"], must_be.dtype).reshape(must_be.shape)
        for name, must_be in expected.items()
    }
    check_values(arrays)
    return {name: array.copy() for name, array in arrays.items()}


def check_values(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Refuse tensors of which no finite number can be computed.

    Raises
    ------
    ValueError
        If one has a NaN or an infinity, or a variance is below 0.
    """
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"its tensor {name!r} must be finite")
        if name.endswith("var") and (array < 0).any():
            raise ValueError(f"its tensor {name!r} must be variances, 0 or more")
