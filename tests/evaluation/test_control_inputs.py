from collections import Counter
from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from plug_sklearn import LayerAggregator, probe_controls
from plug_sklearn.evaluation._control_inputs import (
    join_contents,
    make_text_baselines,
    measure_lengths,
    shuffle_labels,
)

TEXTS = np.array(["O is a gas", "Fe is a solid", "Au", "Fe is no gas at all"] * 5)
Y = np.array([1, 0, 1, 0] * 5)

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


def test_the_probe_is_trained_and_tested_on_shuffled_labels() -> None:
    # Two equal rows have one label, before and after.
    X = np.repeat(np.random.default_rng(0).normal(size=(20, 2, 3)), 2, axis=0)
    y, groups = np.arange(40) // 2 % 2, np.arange(40) // 8
    folds = list(GroupKFold(2).split(X, y, groups))
    probe = make_pipeline(LayerAggregator(), LogisticRegression())
    table = probe_controls(
        probe,
        X,
        y,
        cv=folds,
        groups=groups,
        controls=["shuffled_labels"],
        random_state=5,
    )
    seed = np.random.RandomState(5).randint(2**31, size=2)[0]
    items = [row.tobytes() for row in X]
    shuffled = shuffle_labels(y, items=items, groups=groups, random_state=seed)
    expected = cross_val_score(probe, X, shuffled, cv=folds)
    found = table.loc[table["control"] == "shuffled_labels", "score"]
    assert found.tolist() == pytest.approx(expected)


def test_lengths_are_of_characters_and_words() -> None:
    assert measure_lengths(["ab c", ""]) == pytest.approx(
        np.array([[log(5), log(3)], [0, 0]])
    )


def test_baselines_are_logistic_regressions_on_what_they_name() -> None:
    # Symbols of one letter are words too.
    pattern = r"(?u)\b\w+\b"
    features = {
        "text_length": StandardScaler().fit_transform(measure_lengths(TEXTS)),
        "bag_of_words": CountVectorizer(token_pattern=pattern).fit_transform(TEXTS),
        "tf_idf": TfidfVectorizer(token_pattern=pattern).fit_transform(TEXTS),
    }
    baselines = make_text_baselines()
    assert list(baselines) == list(features)
    for name, X in features.items():
        expected = LogisticRegression(max_iter=1000).fit(X, Y).predict_proba(X)
        found = baselines[name].fit(TEXTS, Y).predict_proba(TEXTS)
        assert found == pytest.approx(expected)
    assert "o" in baselines["bag_of_words"][0].vocabulary_


def test_conversations_say_their_contents_and_nothing_else() -> None:
    said = [{"role": "user", "content": "Gold?"}, {"role": "a", "content": "A metal."}]
    assert join_contents(said) == "Gold?\nA metal."
    assert join_contents("Gold?") == "Gold?"
