"""Apply a trained network, predict labels, and read its gradients and linear path."""

import threading
from abc import abstractmethod
from collections.abc import Callable
from copy import deepcopy
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from torch import Tensor, nn

from plug_sklearn.classifiers._batches import share_tensor
from plug_sklearn.classifiers._data import read_samples
from plug_sklearn.classifiers._networks import MLPNetwork

#: Most samples of a call that are computed in double precision.
MOST_EXACT_ROWS = 1024
Outputs = Tensor | tuple[Tensor, ...]
_of_thread = threading.local()
Affine = tuple[NDArray[np.float64], NDArray[np.float64]]
#: Samples whose gradients are computed at once.
ROWS_AT_ONCE = 256


def apply_in_batches(
    module: nn.Module,
    X: NDArray[np.float32],
    apply: Callable[[Any, Tensor], Tensor],
    device: torch.device,
    batch_size: int,
) -> NDArray[np.float64]:
    """Apply a function of a network to samples (n, ...), batch by batch.

    Up to 1,024 samples are computed in double precision, where the device has it: in
    single precision, a sample's result depends on its batch, by some units of its last
    place. The network stays as it is; ``apply`` is given it, or a copy, in evaluation
    mode.
    """
    is_exact = len(X) <= MOST_EXACT_ROWS and device.type != "mps"
    dtype = torch.float64 if is_exact else torch.float32
    # Other threads may read the network, so that only a copy may change.
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
    """Take the logits from the outputs of a network."""
    return outputs[0] if isinstance(outputs, tuple) else outputs


def softmax_last(outputs: Outputs) -> Tensor:
    """Turn the outputs of a network into probabilities."""
    return take_logits(outputs).softmax(dim=-1)


def copy_in_double(module: nn.Module) -> nn.Module:
    """Copy a trained network in double precision and evaluation mode.

    Copying its structure takes longer than to compute a few samples. Each thread keeps
    that as long as the network exists, and copies only the weights.
    """
    copies: WeakKeyDictionary[nn.Module, nn.Module] = vars(_of_thread).setdefault(
        "copies", WeakKeyDictionary()
    )
    if module not in copies:
        copies[module] = deepcopy(module).double().eval()
    copy = copies[module]
    with torch.no_grad():
        for mine, its in zip(_list_tensors(copy), _list_tensors(module), strict=True):
            mine.copy_(its)
    return copy


def _list_tensors(module: nn.Module) -> "chain[torch.Tensor]":
    return chain(module.parameters(), module.buffers())


class PredictsLabels(ClassifierMixin):
    """A classifier that predicts by the probabilities of ``classes_``."""

    classes_: NDArray[Any]

    @abstractmethod
    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Predict the probability of each class, (n_samples, n_classes)."""

    def predict_log_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Predict the natural logarithm of the probability of each class.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples of the shape seen in ``fit``.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), float64
            Logarithms of ``predict_proba(X)``; ``-inf`` where a probability is 0.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If ``fit`` has not been called.
        ValueError
            If ``X`` is not finite, or its shape differs from that in ``fit``.
        """
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Predict labels: the most probable class of each sample.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples of the shape seen in ``fit``.

        Returns
        -------
        ndarray of shape (n_samples,)
            Labels, from ``classes_``.
        """
        winners = self.predict_proba(X).argmax(axis=1)
        labels: NDArray[Any] = self.classes_[winners]
        return labels


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
            f"be read without 'X'. Got {type(classifier).__name__} without one: give "
            "samples as 'X' for the mean gradient."
        )
    with torch.no_grad():
        weights = network.linear.weight.mean(dim=0)
        bias = network.linear.bias.mean(dim=0)
        if network.components is not None:
            weights = weights @ network.components.basis.T
        weights = weights * network.standardise.scale
        intercept = bias - weights @ network.standardise.mean
        factor = network.temperature.factor
        return (
            contrast_classes((weights * factor).numpy(force=True)),
            contrast_classes((intercept * factor).numpy(force=True)),
        )


def average_gradient(classifier: Any, X: ArrayLike) -> Affine:  # noqa: ANN401 - a fitted classifier of ours
    """Return the mean gradient of the log-odds over samples, and an intercept.

    Gradients have the shape (n_outputs, n_features), for the outputs of
    :func:`contrast_classes`. The intercepts, of shape (n_outputs,), are chosen so that
    the affine function and the log-odds have the same mean over these samples.
    """
    samples = read_samples(classifier, X)
    module: Any = copy_in_double(classifier.net_.module_)
    device = module.standardise.mean.device
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
