from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plug_sklearn.evaluation._shuffling import shuffle_labels

ROWS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 2)), min_size=1
)


@given(rows=ROWS, seed=st.integers(0, 100))
def test_items_that_share_a_label_share_one_afterwards(
    rows: list[tuple[int, int, int]], seed: int
) -> None:
    groups, items, labels = (np.array(column) for column in zip(*rows, strict=True))
    shuffled = shuffle_labels(labels, items=items, groups=groups, random_state=seed)
    for group, item in set(zip(groups, items, strict=True)):
        same = (groups == group) & (items == item)
        if len(set(labels[same])) == 1:
            assert len(set(shuffled[same])) == 1


@given(rows=ROWS, seed=st.integers(0, 100))
def test_labels_stay_in_a_group_or_move_with_all_of_it(
    rows: list[tuple[int, int, int]], seed: int
) -> None:
    groups, _, labels = (np.array(column) for column in zip(*rows, strict=True))
    shuffled = shuffle_labels(labels, groups=groups, random_state=seed)
    before, after = [], []
    for group in set(groups):
        of_group = groups == group
        if len(set(labels[of_group])) == 1:
            assert len(set(shuffled[of_group])) == 1
            before.append(labels[of_group][0])
            after.append(shuffled[of_group][0])
        else:
            assert Counter(labels[of_group]) == Counter(shuffled[of_group])
    assert Counter(before) == Counter(after)


def test_every_order_of_the_labels_of_a_group_is_as_likely() -> None:
    y = np.array(["t", "t", "f"])
    found = Counter(
        "".join(shuffle_labels(y, groups=[1, 1, 1], random_state=seed))
        for seed in range(600)
    )
    assert set(found) == {"ttf", "tft", "ftt"}
    assert min(found.values()) > 150


def test_without_groups_labels_are_permuted_by_the_seed() -> None:
    y = np.arange(50) % 2
    first, again, other = (shuffle_labels(y, random_state=seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert first.sum() == y.sum()
    assert not np.array_equal(first, other)
    assert np.corrcoef(first, y)[0, 1] == pytest.approx(0, abs=0.4)
    assert np.array_equal(y, np.arange(50) % 2)


def test_memory_gains_as_much_as_on_the_true_labels() -> None:
    # Ten texts, each ten times: a look-up table is right about each of them.
    items = np.repeat(np.arange(10), 10)
    y = items % 2
    shuffled = shuffle_labels(y, items=items, random_state=0)
    learnt = dict(zip(items[::2], shuffled[::2], strict=True))
    assert [learnt[item] for item in items[1::2]] == shuffled[1::2].tolist()
