"""What a record holds: which slots, of which size and dtype."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from plug_sklearn.embedding.store._vectors import STORED

#: A layer, a part of it, and how the tokens were pooled.
Slot = tuple[int, str, str | None]

#: SQLite's integers have a sign.
_CHECKSUM_MASK = 2**63 - 1


class Plan(NamedTuple):
    """What is wanted of the records of one layout.

    Attributes
    ----------
    places : list of int
        The slots of the layout that are wanted.
    positions : list of int
        Where each of them is among the slots that are asked for.
    is_whole : bool
        Whether these are all slots that are asked for, in order, at the record's
        beginning.
    """

    places: list[int]
    positions: list[int]
    is_whole: bool


class Layout:
    """What a record holds: for each slot, a vector of ``hidden_size`` numbers.

    Where the pooling of the slots is None, each has a vector for every token.
    """

    def __init__(self, dtype: str, hidden_size: int, slots: tuple[Slot, ...]) -> None:
        self.dtype = dtype
        self.hidden_size = hidden_size
        self.slots = slots
        described = {"dtype": dtype, "hidden_size": hidden_size, "slots": slots}
        self.description = json.dumps(described).encode()
        self._stored = np.dtype(STORED[dtype])
        self._size = self._stored.itemsize * hidden_size * len(slots)
        self._seed = xxh3_64_intdigest(self.description)
        self._is_pooled = all(pooling is not None for _, _, pooling in slots)

    def sum_up(
        self, prompts: Iterable[bytes], vectors: Iterable[memoryview]
    ) -> list[int]:
        """Compute the checksums of records."""
        return [
            xxh3_64_intdigest(own, xxh3_64_intdigest(prompt, self._seed))
            & _CHECKSUM_MASK
            for prompt, own in zip(prompts, vectors, strict=True)
        ]

    def are_sizes(self, n_bytes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which numbers of bytes a record of this layout can have."""
        if self._is_pooled:
            return np.asarray(n_bytes == self._size)
        return np.asarray((n_bytes > 0) & (n_bytes % self._size == 0))

    def is_stored_as(self, dtype: np.dtype[np.floating]) -> bool:
        """Return whether records hold numbers of a dtype."""
        # bfloat16 is stored as an integer, which no dtype of activations is.
        return bool(self._stored == dtype)

    def unpack(self, vectors: memoryview) -> NDArray[np.generic]:
        """View a record as an array of shape (n_slots, hidden_size).

        Of shape (n_slots, n_tokens, hidden_size) where every token was kept. Several
        pooled records, or several of one slot, are viewed as one.
        """
        flat = np.frombuffer(vectors, self._stored)
        if self._is_pooled:
            return flat.reshape(-1, self.hidden_size)
        return flat.reshape(len(self.slots), -1, self.hidden_size)


def parse_layout(description: bytes) -> Layout | None:
    """Read a layout; None if it is damaged."""
    try:
        found: dict[str, Any] = json.loads(description)
        slots = tuple((layer, part, pooling) for layer, part, pooling in found["slots"])
        if not _is_right(found["hidden_size"], slots):
            return None
        layout = Layout(found["dtype"], found["hidden_size"], slots)
    except (ValueError, TypeError, KeyError):
        return None
    return layout if layout.description == description else None


def _is_right(hidden_size: object, slots: tuple[Slot, ...]) -> bool:
    """Return whether a record can be of that size, and hold these slots."""
    return (
        isinstance(hidden_size, int)
        and hidden_size > 0
        and len(slots) > 0
        and all(
            isinstance(layer, int)
            and isinstance(part, str)
            and isinstance(pooling, str | None)
            for layer, part, pooling in slots
        )
    )


def plan_reading(layout: Layout, slots: Sequence[Slot]) -> Plan:
    """Plan what to take of the records of a layout, to read some slots."""
    position = {slot: number for number, slot in enumerate(slots)}
    places = [place for place, slot in enumerate(layout.slots) if slot in position]
    positions = [position[layout.slots[place]] for place in places]
    return Plan(places, positions, positions == places == [*range(len(slots))])
