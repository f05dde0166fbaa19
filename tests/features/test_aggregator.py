from collections import Counter
from collections.abc import Callable

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from sklearn.utils.estimator_checks import check_estimator

from plug_sklearn import LayerAggregator

ACTIVATIONS = np.random.default_rng(0).standard_normal((5, 4, 3, 2))


def aggregate_by_loops(
    X: NDArray[np.floating], layers: list[int], parts: list[int], method: str
) -> NDArray[np.floating]:
    """Plain-Python reference: one value at a time."""
    rows = []
    for sample in X:
        chosen = [
            [sample[layer][part][unit] for part in parts for unit in range(X.shape[3])]
            for layer in layers
        ]
        if method == "concat":
            rows.append([value for layer in chosen for value in layer])
        else:
            pool = max if method == "max" else lambda values: sum(values) / len(values)
            rows.append([pool(values) for values in zip(*chosen, strict=True)])
    return np.array(rows)


def test_scikit_learn_s_checks_pass(tell: Callable[..., None]) -> None:
    results = check_estimator(LayerAggregator(), on_fail=None, on_skip=None)
    count = Counter(result["status"] for result in results)
    tell(f"LayerAggregator: {len(results)} checks, {dict(count)}")
    assert count["failed"] == count["xfail"] == 0
    # scikit-learn runs this one only where SCIPY_ARRAY_API is set
    skipped = {r["check_name"] for r in results if r["status"] == "skipped"}
    assert skipped <= {"check_array_api_input"}


@given(
    layers=st.lists(st.integers(-4, 3), min_size=1, unique_by=lambda i: i % 4),
    parts=st.lists(st.integers(-3, 2), min_size=1, unique_by=lambda i: i % 3),
    method=st.sampled_from(["concat", "mean", "max"]),
)
def test_features_are_what_plain_loops_give(
    layers: list[int], parts: list[int], method: str
) -> None:
    features = LayerAggregator(layers, parts, method).fit_transform(ACTIVATIONS)
    assert_allclose(
        features, aggregate_by_loops(ACTIVATIONS, layers, parts, method), rtol=1e-12
    )


def test_stack_keeps_four_axes() -> None:
    aggregator = LayerAggregator([3, 0], [1], "stack")
    assert_array_equal(
        aggregator.fit_transform(ACTIVATIONS), ACTIVATIONS[:, [3, 0]][:, :, [1]]
    )


@pytest.mark.parametrize("parts", ["mlp", ["mlp"], 2, [-1], np.array([2])])
def test_parts_go_by_position_or_name(parts: object) -> None:
    features = LayerAggregator(layers=0, parts=parts).fit_transform(ACTIVATIONS)
    assert_array_equal(features, ACTIVATIONS[:, 0, 2])


def test_three_axes_are_samples_layers_and_units() -> None:
    features = LayerAggregator(layers=[2]).fit_transform(ACTIVATIONS[:, :, 0])
    assert_array_equal(features, ACTIVATIONS[:, 2, 0])


def test_two_axes_are_samples_and_units() -> None:
    X = ACTIVATIONS[:, 0, 0]
    assert_array_equal(LayerAggregator().fit_transform(X), X)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", ["concat", "mean", "max", "stack"])
def test_dtype_is_kept(dtype: type[np.floating], method: str) -> None:
    aggregator = LayerAggregator(method=method)
    assert aggregator.fit_transform(ACTIVATIONS.astype(dtype)).dtype == dtype


def test_half_precision_becomes_single() -> None:
    halves = ACTIVATIONS.astype(np.float16)
    features = LayerAggregator().fit_transform(halves)
    assert features.dtype == np.float32
    assert_array_equal(features, halves.reshape(len(halves), -1))


@pytest.mark.parametrize("method", ["concat", "mean", "max", "stack"])
@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(">f4", "f4"), ("<f4", "f4"), (">f8", "f8"), (">f2", "f4"), (">i4", "f8")],
)
def test_byte_order_changes_no_dtype(dtype: str, expected: str, method: str) -> None:
    given_ = (8 * ACTIVATIONS).astype(dtype)
    features = LayerAggregator(method=method).fit_transform(given_)
    native = given_.astype(given_.dtype.newbyteorder("="))
    assert features.dtype == np.dtype(expected)
    assert features.dtype.isnative
    assert_array_equal(features, LayerAggregator(method=method).fit_transform(native))


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float32, np.float32),
        (torch.float64, np.float64),
        (torch.float16, np.float32),
        (torch.bfloat16, np.float32),
        (torch.int64, np.float64),
    ],
)
@pytest.mark.parametrize("is_listed", [False, True])
def test_tensors_are_read_as_arrays_of_their_dtype(
    dtype: torch.dtype, expected: type[np.floating], is_listed: bool
) -> None:
    tensor = (8 * torch.from_numpy(ACTIVATIONS)).to(dtype)
    tensor.requires_grad_(dtype.is_floating_point)
    features = LayerAggregator([2], [0, 1]).fit_transform(
        list(tensor) if is_listed else tensor
    )
    assert features.dtype == expected
    plain = np.array(tensor[:, 2, :2].detach().reshape(5, -1).tolist())
    assert_array_equal(features, plain)


def test_dtype_of_other_array_likes_is_kept() -> None:
    singles = ACTIVATIONS[:, 0, 0].astype(np.float32)
    polars_frame = pl.DataFrame(singles, schema=["a", "b"])
    for X in (list(singles), pd.DataFrame(singles), polars_frame, tuple(singles)):
        features = LayerAggregator().fit_transform(X)
        assert features.dtype == np.float32
        assert_array_equal(features, singles)
    assert LayerAggregator().fit_transform(singles.tolist()).dtype == np.float64


@pytest.mark.parametrize("method", ["concat", "mean", "max"])
def test_names_stand_where_their_features_do(method: str) -> None:
    aggregator = LayerAggregator([2, 0], ["mlp", "rs"], method)
    features = aggregator.fit_transform(ACTIVATIONS)
    names = list(aggregator.get_feature_names_out())
    assert len(names) == features.shape[1]
    column = names.index("L0_rs_1" if method == "concat" else f"{method}_rs_1")
    expected = aggregate_by_loops(ACTIVATIONS, [2, 0], [0], method)
    assert_allclose(features[:, column], expected[:, -1])


def test_names_of_the_step_before_are_kept() -> None:
    aggregator = LayerAggregator([1]).fit(ACTIVATIONS)
    given_names = [
        f"L{layer}_{part}_{unit}"
        for layer in (10, 20, 30, 40)
        for part in "abc"
        for unit in range(2)
    ]
    names = aggregator.get_feature_names_out(given_names)
    assert list(names) == given_names[6:12]
    with pytest.raises(ValueError, match="input_features should have length equal"):
        aggregator.get_feature_names_out(["x0"])


def test_pandas_output_is_named_and_indexed() -> None:
    aggregator = LayerAggregator([0], ["rs"]).set_output(transform="pandas")
    frame = aggregator.fit_transform(ACTIVATIONS)
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.columns) == ["L0_rs_0", "L0_rs_1"]


def test_frames_of_stacked_activations_are_refused() -> None:
    aggregator = LayerAggregator(method="stack").set_output(transform="pandas")
    with pytest.raises(ValueError, match=r"'method'.*pandas frame.*Got 'stack'"):
        aggregator.fit_transform(ACTIVATIONS)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"layers": [40]}, r"'layers'.*positions in \[0, 4\).*Got \[40\]"),
        ({"layers": [1, -3]}, r"'layers'.*distinct positions.*Got \[1, -3\]"),
        ({"layers": []}, r"'layers'.*distinct positions, at least one.*Got \[\]"),
        ({"layers": "first"}, "'layers'.*Got 'first'"),
        ({"layers": [0.5]}, r"'layers'.*sequence of ints.*Got \[0\.5\]"),
        ({"layers": [True]}, r"'layers'.*sequence of ints.*Got \[True\]"),
        ({"layers": None}, "'layers'.*Got None"),
        ({"parts": [3]}, r"'parts'.*positions in \[0, 3\).*Got \[3\]"),
        ({"parts": ["resid"]}, r"'parts'.*names among.*Got \['resid'\]"),
        ({"parts": {"rs"}}, r"'parts'.*Got {'rs'}"),
        ({"method": "sum"}, r"'method'.*Got 'sum'"),
    ],
)
def test_bad_parameters_are_refused_by_name(
    parameters: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=f"The {message} instead"):
        LayerAggregator().set_params(**parameters).fit(ACTIVATIONS)


def test_names_of_parts_need_all_three() -> None:
    with pytest.raises(ValueError, match=r"'parts'.*only have names if X holds all of"):
        LayerAggregator(parts=["rs"]).fit(ACTIVATIONS[:, :, :2])


def test_another_shape_than_in_fit_is_refused() -> None:
    aggregator = LayerAggregator().fit(ACTIVATIONS)
    with pytest.raises(ValueError, match=r"shape \(4, 3, 2\), as in fit\. Got"):
        aggregator.transform(ACTIVATIONS[:, :, :2])


def test_five_axes_are_refused() -> None:
    with pytest.raises(ValueError, match="2 to 4 axes"):
        LayerAggregator().fit(ACTIVATIONS[None])


def test_parameter_set_after_fit_is_checked() -> None:
    aggregator = LayerAggregator().fit(ACTIVATIONS).set_params(method="mena")
    with pytest.raises(ValueError, match=r"'method'.*Got 'mena'"):
        aggregator.transform(ACTIVATIONS)


def test_names_of_parts_come_in_arrays_too() -> None:
    features = LayerAggregator(parts=np.array(["mlp"])).fit_transform(ACTIVATIONS)
    assert_array_equal(features, ACTIVATIONS[:, :, 2].reshape(5, -1))
