"""Classifiers that read the words or the length of texts, without a language model."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

#: Words of one letter count too, such as the symbols of chemical elements.
WORDS = r"(?u)\b\w+\b"


def make_text_baselines() -> dict[str, Pipeline]:
    """Make the baselines, by the names of their controls.

    They take an array of strings.
    """
    return {
        "text_length": make_pipeline(
            FunctionTransformer(measure_lengths), StandardScaler(), _make_classifier()
        ),
        "bag_of_words": make_pipeline(
            CountVectorizer(token_pattern=WORDS), _make_classifier()
        ),
        "tf_idf": make_pipeline(
            TfidfVectorizer(token_pattern=WORDS), _make_classifier()
        ),
    }


def join_contents(text: str | Sequence[Mapping[str, str]]) -> str:
    """Return a text; of a conversation, the contents of its messages, joined."""
    if isinstance(text, str):
        return text
    return "\n".join(message["content"] for message in text)


def measure_lengths(texts: Sequence[str]) -> NDArray[np.float64]:
    """Return log(1 + n) of the characters and of the words, shape (n_texts, 2)."""
    lengths = [(len(text), len(text.split())) for text in texts]
    return np.log1p(np.array(lengths, dtype=np.float64))


def _make_classifier() -> LogisticRegression:
    return LogisticRegression(max_iter=1000)
