from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plug_sklearn import HFEmbeddingTransformer
from plug_sklearn.embedding.prompts import list_texts, read_texts, refuse_empty_texts


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


def test_a_refusal_shows_only_the_beginning_of_what_it_got() -> None:
    many = [f"text {n}" for n in range(1000)]
    for X in ({"text": many}, [{"text": many}]):
        with pytest.raises(TypeError, match="'text 0'") as caught:
            read_texts(X, "Estimator")
        assert len(str(caught.value)) < 400


def test_a_single_text_is_refused_with_what_to_write() -> None:
    with pytest.raises(TypeError, match=r"Got 'Gold' instead\. Write \[text\]"):
        read_texts("Gold", "Estimator")


class Scalar(SimpleNamespace):
    """An item of a column that is no string, as pyarrow's scalars are."""


class ArrowColumn:
    """A 1-D array whose items are scalars until it is made a list, as in pyarrow."""

    def __init__(self, values: list[object]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[object]:
        return iter([Scalar(value=value) for value in self.values])

    def to_pylist(self) -> list[object]:
        return self.values


class ArrowTable:
    """A table that is indexed by the names of its columns, as in pyarrow."""

    def __init__(self, column: type, **columns: list[object]) -> None:
        self.columns = {name: column(values) for name, values in columns.items()}
        self.column_names = list(columns)
        self.shape = (len(next(iter(columns.values()))), len(columns))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, name: str) -> object:
        return self.columns[name]

    def to_pylist(self) -> list[dict[str, object]]:
        raise AssertionError("gives rows as dictionaries")


class RowTable(ArrowTable):
    """One that also iterates over its rows, as a ``Dataset`` of datasets does."""

    def __iter__(self) -> Iterator[object]:
        return iter([{"text": "x"}] * len(self))


@pytest.mark.parametrize(
    "X",
    [
        ArrowColumn(["a", "b"]),
        ArrowTable(ArrowColumn, text=["a", "b"]),
        RowTable(list, text=["a", "b"]),
        RowTable(np.array, text=["a", "b"]),
    ],
)
def test_columnar_containers_give_their_strings(X: object) -> None:
    assert read_texts(X, "Estimator") == ["a", "b"]


def test_missing_value_of_a_columnar_array_is_named_by_its_position() -> None:
    with pytest.raises(TypeError, match=r"Got None .NoneType. at position 1"):
        read_texts(ArrowTable(ArrowColumn, text=["a", None]), "Estimator")


def test_table_of_several_columns_is_refused_by_its_shape() -> None:
    table = ArrowTable(list, text=["a"], label=["b"])
    with pytest.raises(ValueError, match=r"ArrowTable of shape \(1, 2\)"):
        read_texts(table, "Estimator")


@pytest.mark.parametrize("kind", ["string", "large_string", "string_view"])
def test_containers_of_pyarrow_give_their_strings(kind: str) -> None:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    array = pa.array(["a", "b"], getattr(pa, kind)())
    table = pa.table({"text": array})
    for X in (array, table, table["text"], table.to_batches()[0]):
        assert read_texts(X, "Estimator") == ["a", "b"]


def test_containers_of_datasets_give_their_strings() -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    table = datasets.Dataset(pa.table({"text": ["a", "b"]}), fingerprint="a-table")
    for X in (table, table["text"], table.with_format("arrow")):
        assert read_texts(X, "Estimator") == ["a", "b"]


@pytest.mark.parametrize("kind", [list, tuple, np.array])
def test_text_parts_of_a_content_are_joined(kind: Callable[..., object]) -> None:
    parts = kind([{"type": "text", "text": "Gold "}, {"type": "text", "text": "it is"}])
    (found,) = read_texts([[{"role": "user", "content": parts}]], "Estimator")
    assert found.messages == [{"role": "user", "content": "Gold it is"}]
    plain = [[{"role": "user", "content": "Gold it is"}]]
    assert read_texts(plain, "Estimator") == [found]


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ({"type": "image", "url": "a.png"}, "image"),
        ({"text": "Gold"}, None),
        ({"type": "text", "text": None}, "text"),
        ("Gold", "str"),
    ],
)
def test_part_of_a_content_that_is_no_text_is_refused(part: object, kind: str) -> None:
    conversation = [{"role": "user", "content": [{"type": "text", "text": "a"}, part]}]
    with pytest.raises(
        TypeError, match=rf"items of a.*of type {kind!r}, at position 1"
    ):
        read_texts(["a text", conversation], "Estimator")


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


def test_many_empty_texts_are_counted_and_the_first_five_listed() -> None:
    texts = ["a", *[" "] * 7]
    with pytest.raises(ValueError, match=r"7 of 8 .* \[1, 2, 3, 4, 5, \.\.\.\]"):
        refuse_empty_texts(texts, [" "])


def test_an_empty_text_that_has_a_token_is_read(bert: str) -> None:
    embedder = HFEmbeddingTransformer(bert, device="cpu")
    assert embedder.fit_transform(["", "a"]).shape[0] == 2


@pytest.mark.parametrize("stored", [True, False])
def test_empty_texts_are_refused_before_any_is_computed(
    llama: str, tmp_path: Path, stored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compute(*_: Any, **__: Any) -> None:  # noqa: ANN401
        raise AssertionError("computed")

    monkeypatch.setattr("plug_sklearn.embedding._embed.compute_in_jobs", compute)
    store = tmp_path / "store" if stored else None
    embedder = HFEmbeddingTransformer(llama, device="cpu", store=store, batch_tokens=8)
    texts = [*(f"text {n}" for n in range(50)), ""]
    with pytest.raises(ValueError, match=r"1 of 51 texts .* positions \[50\]"):
        embedder.fit_transform(texts)
    assert not (tmp_path / "store").exists()
