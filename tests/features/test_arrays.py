"""LayerAggregator on token activations: one array a text."""

import joblib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from plug_sklearn import LayerAggregator


def make_ragged(lengths: list[int], dtype: str = "float32") -> NDArray[np.object_]:
    """Random token activations of 3 layers, 2 parts and 4 units."""
    generator = np.random.default_rng(0)
    ragged = np.empty(len(lengths), dtype=object)
    for row, n_tokens in enumerate(lengths):
        drawn = generator.standard_normal((n_tokens, 3, 2, 4))
        ragged[row] = drawn.astype(dtype)
    return ragged


@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    layers=st.sampled_from(["all", [2, 0], [-1]]),
    parts=st.sampled_from(["all", [1], [1, 0]]),
    method=st.sampled_from(["concat", "mean", "max", "stack"]),
)
def test_each_text_is_aggregated_as_if_its_tokens_were_samples(
    lengths: list[int], layers: object, parts: object, method: str
) -> None:
    ragged = make_ragged(lengths)
    aggregator = LayerAggregator(layers, parts, method)
    found = aggregator.fit_transform(ragged)
    assert found.shape == (len(lengths),)
    assert found.dtype == object
    for item, tokens in zip(found, ragged, strict=True):
        assert_array_equal(
            item, LayerAggregator(layers, parts, method).fit_transform(tokens)
        )
        assert item.dtype == np.float32


def test_equal_texts_share_one_result() -> None:
    ragged = make_ragged([2, 3])
    ragged = ragged[[0, 1, 0]]
    found = LayerAggregator().fit_transform(ragged)
    assert found[0] is found[2]
    assert found[0] is not found[1]


def test_list_of_arrays_is_read_as_an_array_of_them() -> None:
    ragged = make_ragged([2, 2, 2])
    expected = LayerAggregator().fit_transform(ragged)
    for item, other in zip(
        LayerAggregator().fit_transform(list(ragged)), expected, strict=True
    ):
        assert_array_equal(item, other)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("float16", "float32"),
        (">f4", "float32"),
        ("float64", "float64"),
        ("i4", "float64"),
    ],
)
def test_token_features_have_the_dtype_of_pooled_ones(
    dtype: str, expected: str
) -> None:
    found = LayerAggregator().fit_transform(make_ragged([2, 3], dtype))
    assert [item.dtype for item in found] == [np.dtype(expected)] * 2


def test_fitted_on_tokens_it_aggregates_pooled_activations_too() -> None:
    aggregator = LayerAggregator(layers=[1]).fit(make_ragged([2, 3]))
    pooled = np.ones((5, 3, 2, 4), dtype=np.float32)
    assert aggregator.transform(pooled).shape == (5, 8)
    assert aggregator.n_features_in_ == 3
    with pytest.raises(ValueError, match=r"samples of shape \(3, 2, 4\)"):
        aggregator.transform(np.ones((5, 3, 2, 5)))


def spoil(ragged: NDArray[np.object_], item: object) -> NDArray[np.object_]:
    ragged[1] = item
    return ragged


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (
            np.ones((2, 3, 2, 5)),
            r"only in their number of tokens.*Got \(3, 2, 5\) at position 1",
        ),
        (np.ones((0, 3, 2, 4)), r"at least one token.*position 1"),
        (np.full((1, 3, 2, 4), np.nan), r"NaN or infinity.*position 1"),
        (np.ones((3, 2)), r"hold an array of numbers.*shape \(3, 2\) at position 1"),
        ("text", r"hold an array of numbers.*Got str at position 1"),
        (None, r"hold an array of numbers.*Got NoneType at position 1"),
        (np.array([["a"]]), r"hold an array of numbers"),
    ],
)
def test_item_that_is_no_token_activation_is_refused(
    item: object, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        LayerAggregator().fit(spoil(make_ragged([2, 3, 1]), item))


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.array(["a", "b"], dtype=object), "hold an array.*Got str at position 0"),
        (["a", "b"], "hold an array.*Got str at position 0"),
        (np.empty(0, dtype=object), "at least one text"),
        (np.empty(2, dtype=object), "Got NoneType at position 0"),
    ],
)
def test_array_of_objects_that_are_no_activations_is_refused(
    X: object, message: str
) -> None:
    with pytest.raises(ValueError, match=f"X given to LayerAggregator.*{message}"):
        LayerAggregator().fit(X)
    with pytest.raises(ValueError, match=f"X given to LayerAggregator.*{message}"):
        LayerAggregator().fit(make_ragged([2, 3])).transform(X)


def test_frames_of_token_features_are_refused() -> None:
    aggregator = LayerAggregator().set_output(transform="pandas")
    with pytest.raises(
        ValueError, match=r"pooled.*pandas frame.*Got token activations"
    ):
        aggregator.fit_transform(make_ragged([2, 3]))


def test_pickled_aggregator_gives_the_same() -> None:
    aggregator = LayerAggregator(layers=[2]).fit(make_ragged([2]))
    again = joblib.hash(aggregator.transform(make_ragged([3])))
    assert again == joblib.hash(aggregator.transform(make_ragged([3])))


def test_parts_are_named_by_what_the_embedder_read() -> None:
    X = np.arange(24.0).reshape(1, 3, 4, 2)
    names = ("rs_last", "rs_mean", "mlp_last", "mlp_mean")
    aggregator = LayerAggregator(parts=["mlp_mean", "rs_last"], part_names=names)
    assert_array_equal(aggregator.fit_transform(X), X[:, :, [3, 0]].reshape(1, -1))
    assert aggregator.get_feature_names_out()[:4].tolist() == [
        "L0_mlp_mean_0",
        "L0_mlp_mean_1",
        "L0_rs_last_0",
        "L0_rs_last_1",
    ]


@pytest.mark.parametrize(
    "names", ["rs", ("rs", "attn"), ("a", "b", "c", "d"), ("a", "a", "b"), [1, 2, 3], 3]
)
def test_part_names_are_as_many_as_the_parts(names: object) -> None:
    with pytest.raises(ValueError, match=r"'part_names'.*sequence of 3 distinct names"):
        LayerAggregator(part_names=names).fit(np.ones((2, 2, 3, 2)))


def test_name_that_is_not_among_the_part_names_is_refused() -> None:
    with pytest.raises(ValueError, match=r"names among \('rs_last', 'rs_mean'\)"):
        LayerAggregator(parts=["rs"], part_names=("rs_last", "rs_mean")).fit(
            np.ones((2, 2, 2, 2))
        )
