"""The linear path of a fitted network, and its mean gradient."""

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from plug_sklearn.classifiers._data import read_samples
from plug_sklearn.classifiers._networks import MLPNetwork
from plug_sklearn.classifiers._prediction import copy_in_double, take_logits

Affine = tuple[NDArray[np.float64], NDArray[np.float64]]
#: Samples whose gradients are computed at once.
ROWS_AT_ONCE = 256


def read_linear_path(classifier: Any) -> Affine:  # noqa: ANN401 - a fitted PlugMLPClassifier
    """Return weights and intercepts of the linear path, in the space of the inputs.

    They are means over the members, of shape (n_outputs, n_features) and (n_outputs,).
    The outputs are those of :func:`contrast_classes`. Raises a ValueError if the
    network has no linear path.
    """
    network: Any = copy_in_double(classifier.net_.module_)
    if not isinstance(network, MLPNetwork) or network.linear is None:
        raise ValueError(
            f"The 'estimator' parameter of probe_direction must have a linear path to "
            f"be read without rows. Got {type(classifier).__name__} without one: give "
            "rows as 'X' for the mean gradient."
        )
    with torch.no_grad():
        weights = network.linear.weight.mean(dim=0)
        bias = network.linear.bias.mean(dim=0)
        if network.projection is not None:
            weights = weights @ network.projection.basis.T
        weights = weights * network.standardise.scale
        intercept = bias - weights @ network.standardise.mean
        factor = network.sharpness.factor
        return (
            contrast_classes((weights * factor).numpy(force=True)),
            contrast_classes((intercept * factor).numpy(force=True)),
        )


def average_gradient(classifier: Any, X: ArrayLike) -> Affine:  # noqa: ANN401 - a fitted classifier of ours
    """Return the mean gradient of the log-odds over samples, and an intercept.

    Gradients have the shape (n_outputs, n_features), for the outputs of
    :func:`contrast_classes`. With the intercept, of shape (n_outputs,), the affine
    function has the mean log-odds of these samples as its mean.
    """
    samples = read_samples(classifier, X)
    module: Any = copy_in_double(classifier.net_.module_)
    tensors = (*module.parameters(), *module.buffers())
    device = next(tensor.device for tensor in tensors)
    total: Any = 0.0
    total_logits: Any = 0.0
    for start in range(0, len(samples), ROWS_AT_ONCE):
        batch = torch.as_tensor(samples[start : start + ROWS_AT_ONCE])
        x = batch.to(device, torch.float64).requires_grad_()
        logits = take_logits(module(x))
        gradients = [
            torch.autograd.grad(logits[:, output].sum(), x, retain_graph=True)[0]
            for output in range(logits.shape[1])
        ]
        total = total + torch.stack(gradients).sum(dim=1).flatten(start_dim=1)
        total_logits = total_logits + logits.detach().sum(dim=0)
    n_rows = len(samples)
    mean_sample = samples.reshape(n_rows, -1).mean(axis=0, dtype=np.float64)
    gradient = contrast_classes(total.numpy(force=True) / n_rows)
    mean_logits = contrast_classes(total_logits.numpy(force=True) / n_rows)
    return gradient, mean_logits - gradient @ mean_sample


def contrast_classes(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn logits, whose first axis is classes, into log-odds.

    Two classes give one output: the second class against the first. More give one for
    each class: against the mean of all.
    """
    is_binary = len(logits) == 2
    contrasted: NDArray[np.float64] = (
        logits[1:] - logits[:1] if is_binary else logits - logits.mean(axis=0)
    )
    return contrasted
