"""Hashes of arrays, by which equal texts are found."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from plug_sklearn.classifiers._array_digests import hash_arrays

TEXTS = st.lists(
    st.lists(st.sampled_from([-0.0, 0.0, 1.0, 2.0]), min_size=1, max_size=4),
    min_size=1,
    max_size=12,
)


@given(TEXTS)
def test_arrays_have_equal_hashes_where_they_are_equal(
    texts: list[list[float]],
) -> None:
    digests = hash_arrays([np.array(text)[:, None] for text in texts])
    for text, digest in zip(texts, digests, strict=True):
        for other, other_digest in zip(texts, digests, strict=True):
            # -0.0 equals 0.0.
            assert (digest == other_digest) == (text == other)


def test_arrays_that_differ_in_the_middle_have_other_hashes() -> None:
    first = np.zeros((9, 3), dtype=np.float16)
    second = first.copy()
    second[4, 1] = 1
    digests = hash_arrays([first, second, first.astype(np.float64)])
    assert digests[0] != digests[1]
    assert digests[0] == digests[2]


def test_longer_arrays_have_larger_hashes() -> None:
    lengths = [300, 2, 70_000, 1, 255, 256]
    digests = hash_arrays([np.ones((length, 1)) for length in lengths])
    order = np.argsort([digest.tobytes() for digest in digests])
    assert [lengths[place] for place in order] == sorted(lengths)
