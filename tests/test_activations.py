"""Activations that know which layers and parts they hold."""

import pickle
from collections.abc import Callable
from copy import copy, deepcopy
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline

from plug_sklearn import (
    HFEmbeddingTransformer,
    LayerAggregator,
    layer_sweep,
    load_artifacts,
    save_artifacts,
)

TEXTS = ["Gold is a metal.", "Lima is in Peru.", "Gold is blue.", "Au", "Is it?", "No"]
LABELS = [0, 1, 0, 1, 0, 1]


@pytest.fixture
def activations(llama: str) -> NDArray[Any]:
    """Activations of layers 1 and 2, in another order, under two poolings."""
    embedder = HFEmbeddingTransformer(
        llama, layers=[2, 1], pooling=("last", "mean"), device="cpu"
    )
    return embedder.fit_transform(TEXTS)


def list_columns(X: Any, **parameters: Any) -> list[str]:  # noqa: ANN401
    """List layer and part of what an aggregator chooses."""
    names = LayerAggregator(**parameters).fit(X).get_feature_names_out()
    return list(dict.fromkeys(str(name).rpartition("_")[0] for name in names))


def test_layers_are_chosen_by_the_numbers_of_the_model(
    activations: NDArray[Any],
) -> None:
    by_number = LayerAggregator(layers=[1]).fit_transform(activations)
    assert_array_equal(by_number, np.asarray(activations)[:, 1].reshape(6, -1))
    by_end = LayerAggregator(layers=-1).fit_transform(activations)
    assert_array_equal(by_end, by_number)


def test_parts_are_chosen_by_the_names_of_the_embedder(
    activations: NDArray[Any],
) -> None:
    assert list_columns(activations, parts=["rs_mean"]) == ["L2_rs_mean", "L1_rs_mean"]
    assert list_columns(activations, layers=[1], parts=[0]) == ["L1_rs_last"]


def test_a_layer_that_was_not_read_is_named_with_those_that_were(
    activations: NDArray[Any],
) -> None:
    with pytest.raises(ValueError, match=r"layers that X holds, \(2, 1\).* Got \[0\]"):
        LayerAggregator(layers=[1, 0]).fit(activations)


KEEP: dict[str, Callable[[NDArray[Any]], Any]] = {
    "rows": lambda X: X[[0, 2]],
    "a slice": lambda X: X[1:],
    "a mask": lambda X: X[np.array([True, False] * 3)],
    "as scikit-learn takes rows": lambda X: X[[0, 1], ...],
    "copy": copy,
    "deepcopy": deepcopy,
    "another dtype": lambda X: X.astype(np.float64),
    "scaled": lambda X: 2 * X,
    "pickle": lambda X: pickle.loads(pickle.dumps(X)),
}
LOSE: dict[str, Callable[[NDArray[Any]], Any]] = {
    "other layers": lambda X: X[:, :1],
    "layers the other way round": lambda X: X[:, ::-1],
    "flipped": lambda X: np.flip(X, axis=1),
    "axes swapped": lambda X: np.transpose(X, (0, 2, 1, 3)),
    "axes swapped by a method": lambda X: X.swapaxes(1, 2),
    "axes reversed twice": lambda X: X.T.T,
    "layers taken": lambda X: np.take(X, [1, 0], axis=1),
    "layers rolled": lambda X: np.roll(X, 1, axis=1),
    "a plain array": np.asarray,
    "one row": lambda X: X[0][None],
}


@pytest.mark.parametrize("name", KEEP)
def test_what_holds_the_same_layers_knows_them(
    activations: NDArray[Any], name: str
) -> None:
    assert list_columns(KEEP[name](activations), layers=[1])[0] == "L1_rs_last"


@pytest.mark.parametrize("name", LOSE)
def test_what_may_hold_others_knows_none(activations: NDArray[Any], name: str) -> None:
    changed = LOSE[name](activations)
    assert list_columns(changed, layers=[0])[0] == "L0_P0"


def test_sums_of_all_numbers_are_plain_numbers(activations: NDArray[Any]) -> None:
    plain = np.asarray(activations)
    for name in ("sum", "mean", "max", "std"):
        found, expected = getattr(activations, name)(), getattr(plain, name)()
        assert type(found) is type(expected)
        assert found == expected


def test_columns_of_frames_are_named_by_the_layers_of_the_model(llama: str) -> None:
    pipeline = make_pipeline(
        HFEmbeddingTransformer(llama, layers=[1, 2]), LayerAggregator(layers=[2])
    ).set_output(transform="pandas")
    frame = pipeline.fit_transform(TEXTS)
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.columns[:2]) == ["L2_rs_0", "L2_rs_1"]
    assert list(pipeline.get_feature_names_out()) == list(frame.columns)


def test_token_activations_are_chosen_by_layer_too(llama: str) -> None:
    embedder = HFEmbeddingTransformer(llama, layers=[2, 1], pooling=None)
    X = embedder.fit_transform(TEXTS)
    chosen = LayerAggregator(layers=[1]).fit_transform(X)
    assert_array_equal(chosen[0], X[0][:, 1].reshape(len(X[0]), -1))


def build(llama: str, memory: object = None) -> Pipeline:
    return Pipeline(
        [
            ("embedder", HFEmbeddingTransformer(llama, layers=[1, 2])),
            ("aggregator", LayerAggregator(layers=[2])),
            ("probe", LogisticRegression()),
        ],
        memory=memory,
    )


def test_a_search_in_other_processes_and_a_cache_choose_the_same_layers(
    llama: str, tmp_path: Path
) -> None:
    expected = build(llama).fit(TEXTS, LABELS).predict_proba(TEXTS)
    for _ in range(2):
        cached = build(llama, joblib.Memory(tmp_path, verbose=0)).fit(TEXTS, LABELS)
        assert_array_equal(cached.predict_proba(TEXTS), expected)
    grid = {"aggregator__layers": [[1], [2]]}
    search = GridSearchCV(build(llama), grid, cv=2, n_jobs=2, error_score="raise")
    assert search.fit(TEXTS, LABELS).best_params_["aggregator__layers"] in ([1], [2])


def test_workers_share_the_memory_of_large_activations(
    activations: NDArray[Any],
) -> None:
    with joblib.Parallel(n_jobs=2, max_nbytes=100) as parallel:
        found = parallel(
            joblib.delayed(lambda X: (X.layers, isinstance(X.base, np.memmap)))(
                activations
            )
            for _ in range(2)
        )
    assert found == [((2, 1), True)] * 2


def test_other_layers_than_in_fit_are_refused(
    llama: str, activations: NDArray[Any]
) -> None:
    aggregator = LayerAggregator().fit(activations)
    other = HFEmbeddingTransformer(llama, layers=[0, 1], pooling=("last", "mean"))
    with pytest.raises(ValueError, match=r"layers \(2, 1\), as in fit. Got .*\(0, 1\)"):
        aggregator.transform(other.fit_transform(TEXTS))


def test_other_parts_than_in_fit_are_refused(
    activations: NDArray[Any], llama: str
) -> None:
    aggregator = LayerAggregator(parts=["rs_mean"]).fit(activations)
    other = HFEmbeddingTransformer(
        llama, layers=[2, 1], pooling=("mean", "last"), device="cpu"
    ).fit_transform(TEXTS)
    with pytest.raises(ValueError, match=r"the parts \('rs_last', 'rs_mean'\), as in"):
        aggregator.transform(other)


def test_layers_given_twice_are_named_as_they_were_given(
    activations: NDArray[Any],
) -> None:
    with pytest.raises(ValueError, match=r"distinct layers.* Got \[1, -1\]"):
        LayerAggregator(layers=[1, -1]).fit(activations)


def test_a_sweep_over_activations_names_the_layers_of_the_model(
    activations: NDArray[Any],
) -> None:
    sweep = layer_sweep(LogisticRegression(), activations, LABELS, cv=2, layers=[1])
    assert set(sweep["layer"]) == {1}
    assert set(sweep["part"]) == {"rs_last", "rs_mean"}


def test_artifacts_keep_the_names(activations: NDArray[Any], tmp_path: Path) -> None:
    aggregator = LayerAggregator(layers=[1]).fit(activations)
    save_artifacts(aggregator, tmp_path / "probe")
    loaded = load_artifacts(tmp_path / "probe")
    assert_array_equal(
        loaded.get_feature_names_out(), aggregator.get_feature_names_out()
    )
    assert_array_equal(loaded.transform(activations), aggregator.transform(activations))


def test_a_deep_copy_of_token_activations_shares_no_array(llama: str) -> None:
    X = HFEmbeddingTransformer(llama, pooling=None).fit_transform(TEXTS[:2])
    copied = deepcopy(X)
    assert copied.layers == X.layers
    before = X[0].copy()
    copied[0][:] = 0
    assert_array_equal(X[0], before)


def resolve(positions: object, n_positions: int) -> tuple[int, ...]:
    aggregator = LayerAggregator(layers=positions)
    return aggregator.fit(np.zeros((1, n_positions, 1, 1))).layers_


@given(st.integers(1, 40), st.data())
def test_positions_index_as_python_does(n_positions: int, data: st.DataObject) -> None:
    asked = data.draw(
        st.lists(
            st.integers(-n_positions, n_positions - 1),
            min_size=1,
            unique_by=lambda position: position % n_positions,
        )
    )
    expected = [range(n_positions)[position] for position in asked]
    assert list(resolve(asked, n_positions)) == expected
    assert list(resolve(np.array(asked), n_positions)) == expected
    assert list(resolve("all", n_positions)) == list(range(n_positions))


def test_an_int_is_one_position() -> None:
    assert resolve(-1, 12) == resolve(np.int64(11), 12) == (11,)


def test_error_names_parameter_range_and_value() -> None:
    with pytest.raises(ValueError) as caught:
        resolve([40], 12)
    assert str(caught.value) == (
        "The 'layers' parameter of LayerAggregator must be positions in [0, 12). "
        "Got [40] instead."
    )


@pytest.mark.parametrize(
    "positions", [None, "some", 1.0, [1.0], [], [0, 0], {0}, [True]]
)
def test_anything_else_is_refused(positions: object) -> None:
    with pytest.raises(ValueError, match="The 'layers' parameter of LayerAggregator"):
        resolve(positions, 12)
