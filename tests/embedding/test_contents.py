import numpy as np
import pandas as pd
import pytest

from plug_sklearn.embedding import read_contents


def test_conversations_become_their_contents_and_strings_stay() -> None:
    said = [
        {"role": "user", "content": "Is gold\na metal?"},
        {"role": "assistant", "content": "Yes."},
    ]
    assert read_contents(["<|x|> a", said]) == ["<|x|> a", "Is gold\na metal?\nYes."]


def test_containers_are_those_of_the_embedder() -> None:
    texts = ["a", "b c"]
    for container in (tuple(texts), np.array(texts), pd.Series(texts, index=[7, 3])):
        assert read_contents(container) == texts
    with pytest.raises(TypeError, match="X given to read_contents must"):
        read_contents("a")
