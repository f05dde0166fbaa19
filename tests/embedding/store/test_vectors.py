import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from numpy.typing import NDArray

from plug_sklearn.embedding.store._vectors import decode, encode

floats = stn.arrays(np.float32, st.integers(1, 50), elements=st.floats(width=32))


@given(floats)
def test_float32_is_kept_bit_by_bit(states: NDArray[np.float32]) -> None:
    kept = decode(encode(states, "float32"), "float32")
    assert kept.tobytes() == states.tobytes()


@given(floats, st.sampled_from([torch.float16, torch.bfloat16]))
def test_half_precision_rounds_as_torch_does(
    states: NDArray[np.float32], dtype: torch.dtype
) -> None:
    expected = torch.from_numpy(states).to(dtype).float()
    name = str(dtype).removeprefix("torch.")
    if torch.isinf(expected).sum() > np.isinf(states).sum():
        with pytest.raises(FloatingPointError, match=f"too large for {name}"):
            encode(states, name)
    else:
        encoded = encode(states, name)
        assert encoded.itemsize == 2
        np.testing.assert_array_equal(decode(encoded, name), expected.numpy())
