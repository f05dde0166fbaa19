"""Hash arrays of token features or labels by their values."""

from collections import Counter
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray


def hash_arrays(arrays: Any) -> NDArray[np.void]:  # noqa: ANN401 - a sequence of arrays
    """Hash arrays by their values, so that longer arrays have larger hashes.

    Arrays that differ in length, or at their beginning or end, are not read completely.
    """
    lengths = [len(array).to_bytes(8, "big") for array in arrays]
    ends = [_hash_values(array[[0, -1]]) for array in arrays]
    begins = [length + end for length, end in zip(lengths, ends, strict=True)]
    n_alike = Counter(begins)
    whole: dict[int, bytes] = {}
    digests = np.empty(len(begins), dtype="V40")
    for position, (array, begin) in enumerate(zip(arrays, begins, strict=True)):
        if n_alike[begin] > 1 and id(array) not in whole:
            whole[id(array)] = _hash_values(array)
        digests[position] = np.void(begin + whole.get(id(array), bytes(16)))
    return digests


def _hash_values(array: NDArray[Any]) -> bytes:
    # Adding 0 turns -0.0 into 0.0, which is equal but has other bytes.
    values = np.ascontiguousarray(array, dtype=np.float32) + np.float32(0)
    return blake2b(values.data, digest_size=16).digest()
