import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plug_sklearn.embedding.prompts._texts import read_texts


@given(st.lists(st.text(), min_size=1))
def test_texts_come_back_as_they_are(texts: list[str]) -> None:
    for container in (texts, tuple(texts), pd.Series(texts, dtype=object)):
        assert read_texts(container, "Estimator") == texts


def test_numpy_strings_become_plain_ones() -> None:
    (text,) = read_texts(np.array(["a"]), "Estimator")
    assert type(text) is str


@pytest.mark.parametrize("X", ["text", b"text", {"a": 1}, {"a"}, 3, None])
def test_what_is_no_collection_of_rows_is_refused(X: object) -> None:
    with pytest.raises(TypeError, match="X given to Estimator must be a list, tuple"):
        read_texts(X, "Estimator")
