"""A network and samples → what it computes of each, batch by batch."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from plug_sklearn.classifiers._precision import copy_in_double
from plug_sklearn.classifiers._rows import share_tensor

#: Samples of a call that are computed in double precision.
MOST_EXACT_ROWS = 1024

Outputs = Tensor | tuple[Tensor, ...]


def apply_in_batches(
    module: nn.Module,
    X: NDArray[np.float32],
    apply: Callable[[Any, Tensor], Tensor],
    device: torch.device,
    batch_size: int,
) -> NDArray[np.float64]:
    """Apply a function of a network to all samples, batch by batch.

    A few samples are computed in double precision, where the device has it: in single
    precision, a sample's result depends on the samples beside it, by some units of its
    last place.

    Parameters
    ----------
    module : nn.Module
        The network; stays as it is.
    X : ndarray of shape (n, ...), float32
        Samples.
    apply : callable
        Given the network in evaluation mode, or a copy, and a batch of samples.
    device : torch.device
        Where the network is.
    batch_size : int
        Samples of a batch.

    Returns
    -------
    ndarray of shape (n, ...), float64
        What ``apply`` gave, joined.
    """
    is_exact = len(X) <= MOST_EXACT_ROWS and device.type != "mps"
    dtype = torch.float64 if is_exact else torch.float32
    # A copy leaves the network as it is for whoever reads it in other threads.
    if module.training:
        module = deepcopy(module).to(dtype).eval()
    elif is_exact:
        module = copy_in_double(module)
    results = []
    with torch.inference_mode():
        for start in range(0, len(X), batch_size):
            batch = X[start : start + batch_size]
            samples = share_tensor(batch).to(device, dtype)
            results.append(apply(module, samples).cpu().double())
    joined: NDArray[np.float64] = torch.cat(results).numpy()
    return joined


def take_logits(outputs: Outputs) -> Tensor:
    """Take the logits of what a network gives."""
    return outputs[0] if isinstance(outputs, tuple) else outputs


def softmax_last(outputs: Outputs) -> Tensor:
    """Turn what a network gives into probabilities."""
    return take_logits(outputs).softmax(dim=-1)
