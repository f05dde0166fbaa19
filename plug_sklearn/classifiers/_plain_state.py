"""A fitted classifier ⇄ plain values and arrays: what pickles and files hold."""

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from torch import nn

from plug_sklearn._devices import resolve_device
from plug_sklearn._provenance import RecordsVersions
from plug_sklearn.classifiers._training import ProbeNet

Weights = dict[str, NDArray[Any]]


class HasPlainState(RecordsVersions, BaseEstimator):
    """A classifier whose pickle holds a network as its sizes and weights.

    No class of torch or skorch is in it, and nothing that depends on a device: it loads
    onto the device that ``device`` names where it is loaded.
    """

    device: str
    _network: ClassVar[type[nn.Module]]
    # Rows computed at once outside training: what bounds the memory of a prediction.
    _evaluation_rows: ClassVar[int]

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        if "net_" in state:
            sizes, weights = self._describe_net()
            state["net_"] = {"sizes": sizes, "weights": weights}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        network = state.pop("net_", None)
        super().__setstate__(state)
        if network is not None:
            self._restore_net(network["sizes"], network["weights"])

    def _describe_net(self) -> tuple[dict[str, Any], Weights]:
        """Give the parameters of the trained network's class, and its weights."""
        net: ProbeNet = self.net_
        weights = {
            name: value.detach().cpu().numpy().copy()
            for name, value in net.module_.state_dict().items()
        }
        return dict(net.get_params_for("module")), weights

    def _restore_net(self, sizes: dict[str, Any], weights: Weights) -> None:
        """Build the trained net again, without any training."""
        net = ProbeNet(
            self._network,
            evaluation_rows=self._evaluation_rows,
            device=str(resolve_device(self.device, type(self).__name__)),
            classes=np.arange(sizes["n_classes"]),
            verbose=0,
            **{f"module__{name}": size for name, size in sizes.items()},
        )
        net.initialize()
        net.module_.load_state_dict(
            {name: torch.tensor(value) for name, value in weights.items()}
        )
        net.trim_for_prediction()
        self.n_parameters_ = sum(value.numel() for value in net.module_.parameters())
        self.net_ = net
