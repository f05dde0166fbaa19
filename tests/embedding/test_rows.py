import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from plug_sklearn.embedding import list_texts


def test_conversations_are_lists_of_messages_and_strings_stay() -> None:
    said = [{"role": "user", "content": "Gold\n?"}, {"role": "a", "content": "Yes."}]
    assert list_texts(["<|x|> a", said]) == ["<|x|> a", said]


def test_containers_are_those_of_the_embedder() -> None:
    texts = ["a", "b c"]
    for container in (
        tuple(texts),
        np.array(texts),
        pd.Series(texts, index=[7, 3]),
        pd.DataFrame({"x": texts}),
        pa.array(texts),
    ):
        assert list_texts(container) == texts
    with pytest.raises(TypeError, match="X given to list_texts must"):
        list_texts("a")
