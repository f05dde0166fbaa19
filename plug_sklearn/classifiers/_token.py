"""The classifier on the features of all tokens of a text."""

from collections.abc import Sequence
from numbers import Integral, Real
from types import SimpleNamespace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from plug_sklearn.classifiers._base import BasePlugClassifier
from plug_sklearn.classifiers._data import ClassWeight
from plug_sklearn.classifiers._layers import average_members
from plug_sklearn.classifiers._monitoring import Scorer
from plug_sklearn.classifiers._prediction import copy_in_double
from plug_sklearn.classifiers._sizing import size_tokens, size_tokens_by_budget
from plug_sklearn.classifiers._token_aggregation import weigh_tokens
from plug_sklearn.classifiers._token_batches import TokenRows, put_texts_on_device
from plug_sklearn.classifiers._token_data import (
    TextRows,
    read_text_rows,
    read_text_validation_rows,
    read_texts,
)
from plug_sklearn.classifiers._token_network import (
    N_RECENT,
    WITH_QUERIES,
    TokenBatch,
    TokenNetwork,
)
from plug_sklearn.classifiers._token_running import POOLS
from plug_sklearn.classifiers._token_stream import TokenStream, run_along_texts
from plug_sklearn.classifiers._token_training import TokenNet

#: Learning rate of the biases of logits and of the last tokens.
BIAS_RATE = 0.01
#: Scores of fewer inputs learn as fast as with so many.
LEAST_INPUTS = 50
#: Constraints of parameters that other classifiers have.
_OF_OTHERS = ("dropout",)


class PlugTokenClassifier(BasePlugClassifier):
    """Classifier."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **{
            name: allowed
            for name, allowed in BasePlugClassifier._parameter_constraints.items()
            if name not in _OF_OTHERS
        },
        "weight_decay": [Interval(Real, 0, 1, closed="left")],
        "aggregation": [StrOptions(set(POOLS))],
        "window": [Interval(Integral, 1, None, closed="left")],
        "head_cap": [Interval(Integral, 1, None, closed="left")],
    }
    _network = TokenNetwork
    _net = TokenNet
    _evaluation_rows = 256

    def __init__(
        self,
        *,
        aggregation: str = "attention",
        window: int = 8,
        target_ratio: float = 5.0,
        head_cap: int = 8,
        sizing: str = "heuristic",
        n_members: int = 5,
        linear_path: bool = True,
        input_dropout: float = 0.2,
        max_epochs: int = 100,
        lr: float = 0.5,
        weight_decay: float = 1e-3,
        linear_lr: float = 0.17,
        linear_decay: float = 3e-4,
        batch_size: int = 32,
        early_stopping: bool = True,
        validation_fraction: float = 0.2,
        patience: int = 15,
        min_delta: float = 0.002,
        monitor: str | Scorer = "roc_auc",
        calibrate: bool = True,
        class_weight: ClassWeight = None,
        callbacks: Sequence[Any] | None = None,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: bool | int = False,
    ) -> None:
        self.aggregation = aggregation
        self.window = window
        self.target_ratio = target_ratio
        self.head_cap = head_cap
        self.sizing = sizing
        self.n_members = n_members
        self.linear_path = linear_path
        self.input_dropout = input_dropout
        self.max_epochs = max_epochs
        self.lr = lr
        self.weight_decay = weight_decay
        self.linear_lr = linear_lr
        self.linear_decay = linear_decay
        self.batch_size = batch_size
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.min_delta = min_delta
        self.monitor = monitor
        self.calibrate = calibrate
        self.class_weight = class_weight
        self.callbacks = callbacks
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def predict_token_proba(self, X: Any, running: bool = False) -> NDArray[np.object_]:  # noqa: ANN401 - as for fit
        """Predict"""
        check_is_fitted(self, "net_")

        def read_alone(network: TokenNetwork, batch: TokenBatch) -> list[Tensor]:
            logits = network.read_alone(network.score_tokens(batch.features))
            return batch.split(network.sharpness(network.mix(logits)))

        def run(network: TokenNetwork, batch: TokenBatch) -> list[Tensor]:
            scores, kept = network.score_texts(batch)
            return run_along_texts(network, scores, kept)

        found = self.net_.apply_to_texts(
            list(self._read_samples(X)), run if running else read_alone
        )
        return _gather([average_members(logits).softmax(dim=1) for logits in found])

    def token_weights(self, X: Any) -> NDArray[np.object_]:  # noqa: ANN401 - as for fit
        """Tell"""
        check_is_fitted(self, "net_")

        def weigh(network: TokenNetwork, batch: TokenBatch) -> list[Tensor]:
            scores, kept = network.score_texts(batch)
            weights = weigh_tokens(scores, kept, network.rule)
            return [own[mask] for own, mask in zip(weights, kept, strict=True)]

        return _gather(self.net_.apply_to_texts(list(self._read_samples(X)), weigh))

    def start_stream(self, n_texts: int = 1) -> TokenStream:
        """Start."""
        check_is_fitted(self, "net_")
        return TokenStream(copy_in_double(self.net_.module_), n_texts)

    def _size_network(self, n_samples: int) -> dict[str, object]:
        given = self._read_parameters()
        (n_features,) = self.input_shape_
        n_classes, n_kept = len(self.classes_), None
        aggregation = "max" if self.labels_tokens_ else given.aggregation
        n_outputs = 1 if n_classes == 2 else n_classes
        n_heads = 1
        if given.sizing == "budget":
            n_heads, n_kept = size_tokens_by_budget(
                n_samples,
                n_features,
                n_outputs,
                has_queries=aggregation in WITH_QUERIES,
                n_recent=N_RECENT if aggregation == "attention" else 0,
                linear_path=given.linear_path and not self.labels_tokens_,
                target_ratio=given.target_ratio,
                head_cap=1 if self._has_one_head() else given.head_cap,
                n_members=given.n_members,
            )
        elif not self._has_one_head():
            n_heads = size_tokens(
                n_samples,
                n_features,
                target_ratio=given.target_ratio,
                head_cap=given.head_cap,
            )
        return {
            "n_features": n_features,
            "n_classes": n_classes,
            "n_heads": n_heads,
            "aggregation": aggregation,
            "window": given.window if aggregation == "rolling" else 1,
            "n_members": given.n_members,
            "linear_path": given.linear_path and not self.labels_tokens_,
            "input_dropout": given.input_dropout,
            "n_kept": None if n_kept == n_features else n_kept,
            "strongest": self.labels_tokens_,
        }

    def _has_one_head(self) -> bool:
        """Tell whether more heads would add up to the same function as one."""
        return self.labels_tokens_ or self.aggregation == "mean"

    def _describe_optimizer(
        self,
        given: SimpleNamespace,
        skeleton: Any,  # noqa: ANN401 - a TokenNetwork
    ) -> dict[str, Any]:
        # AdamW changes each weight by about as much as the others, so that a score
        # changes in proportion to the number of its inputs.
        n_inputs = max(skeleton.output.weight.shape[1], LEAST_INPUTS)
        lr, linear_lr = given.lr / n_inputs, given.linear_lr / n_inputs
        groups = [("output.bias", {"lr": BIAS_RATE, "weight_decay": 0.0})]
        if skeleton.queries is not None:
            groups.append(("queries.recency", groups[0][1]))
        if skeleton.linear is not None:
            decay = given.linear_decay / linear_lr
            groups.append(("linear.*", {"lr": linear_lr, "weight_decay": decay}))
        return {
            "lr": lr,
            "optimizer__weight_decay": given.weight_decay / lr,
            "optimizer__param_groups": groups,
        }

    def _read_rows(
        self,
        X: Any,  # noqa: ANN401 - validated here
        y: Any,  # noqa: ANN401 - validated here
        sample_weight: ArrayLike | None,
        groups: ArrayLike | None,
    ) -> TextRows:
        rows = read_text_rows(self, X, y, sample_weight, groups)
        self.labels_tokens_ = rows.token_codes is not None
        if self.labels_tokens_ and self.monitor not in ("roc_auc", "loss"):
            raise ValueError(
                "The 'monitor' parameter of PlugTokenClassifier must be 'roc_auc' or "
                f"'loss' if tokens have labels. Got {self.monitor!r} instead."
            )
        return rows

    def _read_validation_rows(
        self, X_val: ArrayLike | None, y_val: ArrayLike | None
    ) -> TextRows:
        return read_text_validation_rows(
            self, X_val, y_val, per_token=self.labels_tokens_
        )

    def _read_samples(self, X: ArrayLike) -> NDArray[np.object_]:
        return read_texts(self, X, reset=False)

    def _put_on_device(
        self, rows: TextRows, class_factors: NDArray[np.float64], device: torch.device
    ) -> TokenRows:
        return put_texts_on_device(rows, class_factors, device)


def _gather(found: Sequence[Tensor]) -> NDArray[np.object_]:
    """Make an array of arrays; equal ones stay one object."""
    arrays = {id(each): each.numpy() for each in found}
    gathered = np.empty(len(found), dtype=object)
    for position, each in enumerate(found):
        gathered[position] = arrays[id(each)]
    return gathered
