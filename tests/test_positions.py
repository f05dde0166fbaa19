import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plug_sklearn import LayerAggregator


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
