"""Check the slots, keys and arrays that users of a store pass."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plug_sklearn._activations import PART_NAMES, POOLINGS
from plug_sklearn.embedding.store._layouts import Slot
from plug_sklearn.embedding.store._settings import KEY_SIZE

_MOST_LAYERS = 2**16


def list_slots(
    layers: Sequence[int], parts: Sequence[str], poolings: Sequence[str] | None
) -> tuple[Slot, ...]:
    """List what is asked of each prompt, in the order of axes 1 and 2."""
    numbers = [int(layer) for layer in layers]
    known = all(0 <= layer < _MOST_LAYERS for layer in numbers)
    if not known or len(set(numbers)) < max(1, len(numbers)):
        raise ValueError(
            "The 'layers' parameter of ActivationStore must be distinct numbers in "
            f"[0, {_MOST_LAYERS}). Got {list(layers)} instead."
        )
    for name, given, allowed in (
        ("parts", parts, PART_NAMES),
        ("poolings", POOLINGS if poolings is None else poolings, POOLINGS),
    ):
        known = all(each in allowed for each in given)
        if not known or len(set(given)) < max(1, len(given)):
            raise ValueError(
                f"The {name!r} parameter of ActivationStore must be distinct names "
                f"among {allowed}. Got {list(given)} instead."
            )
    named = [None] if poolings is None else [str(pooling) for pooling in poolings]
    return tuple(
        (layer, str(part), pooling)
        for layer in numbers
        for part in parts
        for pooling in named
    )


def check_keys(settings: bytes, digests: Sequence[bytes]) -> None:
    """Check the key of settings, and the digests of prompts."""
    for name, keys in (("settings", [settings]), ("digests", digests)):
        is_key = [isinstance(key, bytes) and len(key) == KEY_SIZE for key in keys]
        if not all(is_key):
            raise ValueError(
                f"The {name!r} parameter of ActivationStore must be keys of "
                f"{KEY_SIZE} bytes. Got {keys[is_key.index(False)]!r} instead."
            )


def check_out(
    out: NDArray[Any],
    rows: NDArray[np.int64],
    n_prompts: int,
    shape: tuple[int, int],
    poolings: Sequence[str] | None,
    dtype: np.dtype[np.floating],
) -> None:
    """Check that an array can take prompts in its rows, of a shape each."""
    if poolings is None:
        fits = out.dtype == object and out.ndim == 1
        expected = f"an array of dtype object and shape ({n_prompts} or more,)"
    else:
        fits = out.dtype == dtype and out.ndim == 4 and out.flags.c_contiguous
        fits = fits and out.shape[1:3] == shape
        expected = (
            f"a contiguous {dtype} array of shape ({n_prompts} rows or more, "
            f"{shape[0]}, {shape[1]}, hidden size)"
        )
    if not fits or len(rows) != n_prompts or rows.max(initial=-1) >= len(out):
        raise ValueError(
            f"The 'out' parameter of ActivationStore.read_into must be {expected}. "
            f"Got {out.dtype} {out.shape} instead."
        )


def check_states(
    states: NDArray[np.float32] | list[NDArray[np.float32]],
    n_prompts: int,
    shape: tuple[int, int],
    poolings: Sequence[str] | None,
) -> int:
    """Check activations to write, and give their hidden size."""
    n_axes = 3 if poolings is not None else 4
    shapes = {item.shape[n_axes - 3 :] for item in states}
    fits = len(states) == n_prompts and all(
        item.ndim == n_axes and item.size for item in states
    )
    if not fits or len(shapes) > 1 or any(found[:2] != shape for found in shapes):
        if poolings is not None:
            expected = f"have the shape {(n_prompts, *shape)} and the hidden size"
        else:
            expected = (
                f"be a list of {n_prompts} arrays whose shapes are a number of tokens, "
                f"{shape[0]}, {shape[1]} and the hidden size"
            )
        found = (
            states.shape
            if isinstance(states, np.ndarray)
            else [item.shape for item in states[:3]]
        )
        raise ValueError(
            f"The 'states' parameter of ActivationStore.write must {expected}. "
            f"Got {found} instead."
        )
    return int(next(iter(shapes), (0, 0, 1))[-1])
