from collections.abc import Callable
from io import FileIO
from itertools import count

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from numpy.typing import NDArray

from plug_sklearn.embedding import ActivationStore

floats = stn.arrays(np.float32, st.integers(1, 50), elements=st.floats(width=32))
Keep = Callable[[NDArray[np.float32], str], NDArray[np.float32]]


@pytest.fixture(scope="module")
def keep(tmp_path_factory: pytest.TempPathFactory) -> Keep:
    """Write states to a store of a dtype, and give what is read of them."""
    stores = {
        dtype: ActivationStore(tmp_path_factory.mktemp(dtype), dtype=dtype)
        for dtype in ("float32", "float16", "bfloat16")
    }
    numbers = count()

    def write_and_read(states: NDArray[np.float32], dtype: str) -> NDArray[np.float32]:
        store, number = stores[dtype], next(numbers)
        key, digest = store.register("model", number=number), bytes(16)
        given = states[None, None, None]
        told = store.write(key, [digest], [0], ["rs"], given)
        out = np.empty_like(given)
        assert not store.read_into(key, [digest], [0], ["rs"], out).any()
        assert out.tobytes() == np.asarray(told).tobytes()
        return out[0, 0, 0]

    return write_and_read


@given(floats)
def test_float32_is_kept_bit_by_bit(keep: Keep, states: NDArray[np.float32]) -> None:
    assert keep(states, "float32").tobytes() == states.tobytes()


@given(floats, st.sampled_from([torch.float16, torch.bfloat16]))
def test_half_precision_rounds_as_torch_does(
    keep: Keep, states: NDArray[np.float32], dtype: torch.dtype
) -> None:
    expected = torch.from_numpy(states).to(dtype).float()
    name = str(dtype).removeprefix("torch.")
    if torch.isinf(expected).sum() > np.isinf(states).sum():
        with pytest.raises(FloatingPointError, match=f"too large for {name}"):
            keep(states, name)
    else:
        np.testing.assert_array_equal(keep(states, name), expected.numpy())


def test_half_precision_takes_half_the_room(tmp_path: pytest.TempPathFactory) -> None:
    sizes = {}
    for dtype in ("float32", "float16", "bfloat16"):
        with ActivationStore(tmp_path / dtype, dtype=dtype) as store:
            key = store.register("model")
            store.write(key, [bytes(16)], [0], ["rs"], np.ones((1, 1, 1, 50), "f4"))
            (stored,) = store.contents()
            sizes[dtype] = stored.n_bytes
    assert sizes == {"float32": 200, "float16": 100, "bfloat16": 100}


def test_record_is_read_whole_where_one_read_gives_a_part(
    keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operating system gives at most 2 GB at once."""

    class ShortReads(FileIO):
        def readinto(self, room: memoryview) -> int:
            return super().readinto(room[:1000])

    monkeypatch.setattr("plug_sklearn.embedding.store._vectors.FileIO", ShortReads)
    states = np.arange(5000, dtype=np.float32)
    np.testing.assert_array_equal(keep(states, "float32"), states)
