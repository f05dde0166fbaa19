"""Activations of any library as arrays of numpy, without a loss of precision."""

import sys
from typing import Any

import numpy as np


def to_array(X: Any) -> Any:  # noqa: ANN401 - array-likes of any kind
    """Convert a torch tensor, or a list of tensors or arrays, to one array.

    Tensors of dtypes that numpy lacks become float32. Others are returned as they are.
    """
    if _is_tensor(X):
        tensor = X.detach().cpu()
        # numpy has no bfloat16 and no 8-bit floats.
        is_short = tensor.dtype.is_floating_point and tensor.dtype.itemsize < 4
        return (tensor.float() if is_short else tensor).numpy()
    if isinstance(X, list | tuple):
        return np.asarray([to_array(item) if _is_tensor(item) else item for item in X])
    return X


def holds_single(X: Any) -> bool:  # noqa: ANN401 - as above
    """Tell whether values are floats of up to 32 bits, which float32 can hold."""
    # The columns of a frame have dtypes of their own; numpy finds a common one.
    dtype = np.asarray(X[:0]).dtype if hasattr(X, "columns") else None
    dtype = getattr(X, "dtype", None) if dtype is None else dtype
    return isinstance(dtype, np.dtype) and dtype.kind == "f" and dtype.itemsize <= 4


def _is_tensor(X: Any) -> bool:  # noqa: ANN401 - as above
    # Importing torch takes seconds. Whoever passes a tensor has already imported it.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(X, torch.Tensor)
