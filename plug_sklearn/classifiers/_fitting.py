"""Prepare, train and keep the network of a classifier."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature
from numbers import Integral, Real
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from skorch.helper import predefined_split
from torch import nn

from plug_sklearn._devices import resolve_device
from plug_sklearn._packages import RecordsVersions
from plug_sklearn._warnings import warn_user
from plug_sklearn.classifiers._batches import MemberRows, Rows
from plug_sklearn.classifiers._data import (
    compute_class_factors,
    hold_out_rows,
    read_rows,
    read_samples,
    read_validation_rows,
)
from plug_sklearn.classifiers._monitoring import (
    KeepBestEpoch,
    check_monitor,
    choose_scoring,
    read_callbacks,
)
from plug_sklearn.classifiers._sizing import find_width_limit
from plug_sklearn.classifiers._training import ProbeNet

Weights = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Training:
    """What ``fit`` has prepared: a network, its rows, and the callback that stops it.

    ``validation`` and ``keeper`` are None if no rows are held out or nothing stops.
    """

    net: ProbeNet
    rows: MemberRows
    validation: MemberRows | None
    keeper: KeepBestEpoch | None


class FitsNetwork(RecordsVersions, BaseEstimator, ABC):
    """A classifier that sizes, trains and pickles a network.

    Its pickle holds the network as sizes and weights, without classes of torch or
    skorch, and without a device: it is loaded onto the device that ``device`` names
    where it is loaded.
    """

    device: str
    _network: ClassVar[type[nn.Module]]
    # Rows computed at once outside training, which bounds the memory of a prediction.
    _evaluation_rows: ClassVar[int]
    _net: ClassVar[type[ProbeNet]] = ProbeNet
    # Logits of the linear path with fewer inputs learn as fast as with so many.
    _least_linear_inputs: ClassVar[int] = 1

    _parameter_constraints: ClassVar[dict[str, list[Any]]]

    # Check the arguments of ``fit`` and of predictions.
    _read_rows = read_rows
    _read_validation_rows = read_validation_rows
    _read_samples: ClassVar[Callable[..., NDArray[Any]]] = read_samples

    @abstractmethod
    def _choose_sizes(
        self, given: SimpleNamespace, n_samples: int
    ) -> dict[str, object]:
        """Choose the parameters of the network that are not the classifier's own."""

    def _size_network(self, n_samples: int) -> dict[str, object]:
        """Choose the parameters of the network for samples of ``input_shape_``."""
        given = self._read_parameters()
        return _take_named(given, self._network) | self._choose_sizes(given, n_samples)

    def _read_parameters(self) -> SimpleNamespace:
        """Read the parameters, each number as a Python number.

        Arithmetic on numpy's narrow integers overflows: 8 times ``np.uint8(64)`` is 0.
        """
        names = self._parameter_constraints
        return SimpleNamespace(
            **{name: _to_python(getattr(self, name)) for name in names}
        )

    def _describe_optimizer(
        self,
        given: SimpleNamespace,
        skeleton: Any,  # noqa: ANN401 - either network
    ) -> dict[str, Any]:
        described = {"lr": given.lr, "optimizer__weight_decay": given.weight_decay}
        if skeleton.linear is not None:
            # AdamW changes each weight by about as much as the others, so that a logit
            # changes in proportion to the number of its inputs.
            n_in = skeleton.linear.n_in
            limit = given.lr * max(n_in, self._least_linear_inputs)
            lr = min(given.linear_lr, limit) / n_in
            of_path = {"lr": lr, "weight_decay": given.linear_decay / lr}
            described["optimizer__param_groups"] = [("linear.*", of_path)]
        return described

    def _prepare(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None,
        groups: ArrayLike | None,
        seeds: Sequence[int],
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
    ) -> Training:
        split_seed, net_seed = seeds
        given = self._read_parameters()
        check_monitor(self.monitor, type(self).__name__)
        rows = self._read_rows(X, y, sample_weight, groups)
        validation = None
        if X_val is not None or y_val is not None:
            validation = self._read_validation_rows(X_val, y_val)
        elif given.early_stopping:
            validation = hold_out_rows(
                rows, given.validation_fraction, split_seed, given.n_members
            )
        owner = type(self).__name__
        device = resolve_device(self.device, owner)
        factors = compute_class_factors(self.class_weight, self.classes_, rows, owner)
        stored = rows.put_on_device(factors, device)
        chosen = np.ones((given.n_members, len(rows.codes)), dtype=bool)
        callbacks = read_callbacks(self.callbacks, owner)
        self.monitor_, keeper, valid_set = None, None, None
        if validation is not None:
            self._check_validation_weight(validation, factors)
            if validation.held_out is None:
                valid_set = validation.put_on_device(factors, device)
            else:
                valid_set = stored.choose(validation.held_out)
                chosen = ~validation.held_out
            self.monitor_, scoring = choose_scoring(
                self.monitor, validation, self.classes_, owner
            )
            callbacks = [*scoring, *callbacks]
            if given.early_stopping:
                uses_score = self.monitor_ != "loss"
                calibrated = valid_set if given.calibrate else None
                keeper = KeepBestEpoch(
                    uses_score, given.patience, given.min_delta, calibrated
                )
                callbacks.append(("keep_best_epoch", keeper))
        net = self._build_net(
            given,
            len(rows.codes),
            seed=net_seed,
            class_shares=rows.compute_class_shares(factors).tolist(),
            train_split=valid_set and predefined_split(valid_set),
            callbacks=callbacks,
            device=str(device),
            optimizer__fused=device.type in ("cpu", "cuda"),
        )
        return Training(net, stored.choose(chosen), valid_set, keeper)

    def _build_net(
        self,
        given: SimpleNamespace,
        n_samples: int,
        **parameters: Any,  # noqa: ANN401 - those of ProbeNet
    ) -> ProbeNet:
        sizes = self._size_network(n_samples)
        with torch.device("meta"):
            skeleton = self._network(**sizes)
        if given.sizing == "budget":
            self._compare_with_budget(skeleton, given.target_ratio, n_samples)
        described: dict[str, Any] = {
            **self._describe_optimizer(given, skeleton),
            **{f"module__{name}": size for name, size in sizes.items()},
            **{
                f"criterion__{name}": value
                for name, value in _take_named(given, self._net.loss).items()
            },
        }
        return self._net(
            self._network,
            evaluation_rows=self._evaluation_rows,
            max_epochs=given.max_epochs,
            batch_size=given.batch_size,
            classes=np.arange(len(self.classes_)),
            verbose=int(self.verbose),
            **parameters,
            **described,
        )

    def _tell_ratio_is_unused(self) -> None:
        """Warn if a limit that the user has not set decides the size, not the ratio."""
        parameters = signature(type(self)).parameters
        if "width_cap" not in parameters:
            return
        is_set = {
            name: getattr(self, name) != parameters[name].default
            for name in ("target_ratio", "width_cap")
        }
        limit = {"least": "fewest"}.get(found := find_width_limit(self), found)
        if limit == "most" and is_set["width_cap"]:
            return
        if limit != "none" and is_set["target_ratio"]:
            warn_user(
                f"The 'target_ratio' parameter of {type(self).__name__} does not "
                f"decide the size of its network here: the first layer has the {limit} "
                "units that sizing='heuristic' allows. Use sizing='budget' instead."
            )

    def _check_validation_weight(
        self, validation: Rows, factors: NDArray[np.float64]
    ) -> None:
        codes, weight = validation.list_validated()
        if not (weight * factors[codes]).any():
            raise ValueError(
                f"The 'class_weight' parameter of {type(self).__name__} must give a "
                "weight above zero to a class that the validation samples contain. "
                f"Got {self.class_weight!r} instead."
            )

    def _compare_with_budget(
        self, skeleton: nn.Module, target_ratio: float, n_samples: int
    ) -> None:
        found = sum(parameter.numel() for parameter in skeleton.parameters())
        aimed = target_ratio * n_samples
        if self.verbose:
            per_sample = f"{found / n_samples:.2f} per sample"
            sys.stdout.write(f"{found:,} parameters, {per_sample}.\n")
        if abs(found / aimed - 1) > 0.1:
            warn_user(
                f"{type(self).__name__} has {found:,} trainable parameters, and "
                f"'target_ratio' asks for {aimed:,.0f}. No network for "
                f"{len(self.classes_)} classes is closer to that."
            )

    def _keep(self, training: Training) -> None:
        net, keeper = training.net, training.keeper
        if keeper:
            # A callback, such as skorch's EarlyStopping, may have loaded other weights.
            keeper.restore(net)
        self.history_ = [
            {
                name: value.item() if isinstance(value, np.generic) else value
                for name, value in epoch.items()
                if name != "batches" and not name.endswith(("_best", "_batch_count"))
            }
            for epoch in net.history
            if "train_loss" in epoch
        ]
        if not self.history_:
            raise ValueError(
                f"The 'callbacks' parameter of {type(self).__name__} must not stop "
                f"training before the first epoch has ended. Got {self.callbacks} "
                "instead."
            )
        self.n_iter_ = len(self.history_)
        self.best_epoch_ = keeper.best_epoch_ if keeper else self.n_iter_
        net.trim_for_prediction()
        parameters = list(net.module_.parameters())
        if not all(parameter.isfinite().all() for parameter in parameters):
            raise ValueError(
                f"The 'lr' parameter of {type(self).__name__} must be low enough that "
                f"training does not diverge. Got {self.lr} instead."
            )
        self.n_parameters_ = sum(parameter.numel() for parameter in parameters)
        self.net_ = net
        self._tell_ratio_is_unused()

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
        """Return the parameters of the network's class, and its weights."""
        net: ProbeNet = self.net_
        weights = {
            name: value.detach().cpu().numpy().copy()
            for name, value in net.module_.state_dict().items()
        }
        return dict(net.get_params_for("module")), weights

    def _restore_net(self, sizes: dict[str, Any], weights: Weights) -> None:
        """Rebuild the trained network."""
        net = self._net(
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


def _take_named(given: SimpleNamespace, built: type) -> dict[str, Any]:
    """Take the parameters that a class has too."""
    names = vars(given).keys() & signature(built).parameters
    return {name: getattr(given, name) for name in sorted(names)}


def _to_python(value: object) -> object:
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value
