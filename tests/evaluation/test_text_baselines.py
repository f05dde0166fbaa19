from math import log

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from plug_sklearn.evaluation._text_baselines import (
    join_contents,
    make_text_baselines,
    measure_lengths,
)

TEXTS = np.array(["O is a gas", "Fe is a solid", "Au", "Fe is no gas at all"] * 5)
Y = np.array([1, 0, 1, 0] * 5)


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
