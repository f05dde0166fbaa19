"""The base class of all tables, and the tables of the networks.

There is one table for each class of estimator: its schema, and how to save and restore
it.

A table is a pydantic model that accepts no unknown key and converts no value. No table
holds the path of a class or source code, so that a file cannot run code.
"""

from collections.abc import Iterable, Mapping
from math import prod
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from sklearn.base import BaseEstimator
from torch import nn

import plug_sklearn
from plug_sklearn.persistence._files import Arrays, Expected
from plug_sklearn.persistence._values import (
    describe_labels,
    read_labels,
    read_parameters,
)

Size = Annotated[int, Field(ge=1, le=2**40)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Position = Annotated[int, Field(ge=0)]
Output = Literal["default", "pandas", "polars"]
#: Plain values of any kind, which the estimator's own constraints check.
Parameters = dict[str, Any]
#: A table's values and its tensors, by name.
Described = tuple[dict[str, Any], Arrays]


class Table(BaseModel):
    """A JSON object with exactly the keys of its fields."""

    model_config = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, frozen=True
    )


class Labels(Table):
    """Classes with their dtype, as numpy names it; ``"str"`` for strings."""

    dtype: str
    values: list[bool | int | float | str] = Field(min_length=2)


class MLPSizes(Table):
    """The parameters of an ``MLPNetwork``."""

    n_features: Size
    n_classes: Size
    first: Size
    second: Size
    last: Size
    dropout: Probability
    n_members: Size
    linear_path: bool
    input_dropout: Probability
    n_kept: Size | None


class CNNSizes(Table):
    """The parameters of a ``CNNNetwork``."""

    n_layers: Size
    n_parts: Size
    hidden_size: Size
    n_classes: Size
    first: Size
    second: Size
    projection: Size
    head: Size
    dropout: Probability
    conv_over: Literal["layers", "units"]
    normalise: bool
    affine: bool
    n_members: Size
    linear_path: bool
    input_dropout: Probability
    n_kept: Size | None


class TokenSizes(Table):
    """The parameters of a ``TokenNetwork``."""

    n_features: Size
    n_classes: Size
    n_heads: Size
    aggregation: Literal["attention", "max", "mean", "rolling", "softmax"]
    window: Size
    n_members: Size
    linear_path: bool
    input_dropout: Probability
    n_kept: Size | None
    strongest: bool


class MLPTable(Table):
    """A fitted :class:`PlugMLPClassifier`."""

    kind: Literal["PlugMLPClassifier"]
    parameters: Parameters
    classes: Labels
    input_shape: list[Size] = Field(min_length=1, max_length=16)
    feature_names: list[str] | None
    n_epochs: Position
    best_epoch: Position
    monitor: str | None
    network: MLPSizes

    @staticmethod
    def describe(classifier: Any) -> Described:  # noqa: ANN401 - of the class named by kind
        """Return what to save of a fitted estimator, besides its parameters."""
        sizes, weights = classifier._describe_net()
        monitor = classifier.monitor_
        values = {
            "classes": describe_labels(classifier.classes_),
            "input_shape": list(classifier.input_shape_),
            "feature_names": list_feature_names(classifier),
            "n_epochs": classifier.n_iter_,
            "best_epoch": classifier.best_epoch_,
            "monitor": monitor if isinstance(monitor, str) else None,
            "network": sizes,
        }
        return values, weights

    def expect_tensors(self) -> dict[str, Expected]:
        """List the tensors of the estimator, without allocating them."""
        network = getattr(plug_sklearn, self.kind)._network
        return expect_weights(network, self.network.model_dump())

    def restore(self, tensors: Arrays, device: str) -> BaseEstimator:
        """Make the fitted estimator."""
        kind = getattr(plug_sklearn, self.kind)
        classifier: Any = read_parameters(kind, self.parameters, device=device)
        classes = read_labels(self.classes.dtype, self.classes.values)
        check_count("input_shape", prod(self.input_shape), self._count_units())
        check_count("classes", len(classes), self.network.n_classes)
        classifier.classes_ = classes
        classifier.input_shape_ = tuple(self.input_shape)
        set_features(classifier, self.input_shape[0], self.feature_names)
        classifier.n_iter_ = self.n_epochs
        classifier.best_epoch_ = self.best_epoch
        classifier.monitor_ = self.monitor
        classifier._restore_net(self.network.model_dump(), tensors)
        return classifier

    def _count_units(self) -> int:
        return self.network.n_features


class CNNTable(MLPTable):
    """A fitted :class:`PlugCNNClassifier`."""

    kind: Literal["PlugCNNClassifier"]  # type: ignore[assignment]  # another class of the same values
    network: CNNSizes  # type: ignore[assignment]  # as above
    output: Output | None

    @staticmethod
    def describe(classifier: Any) -> Described:  # noqa: ANN401 - as above
        values, weights = MLPTable.describe(classifier)
        return {**values, "output": read_output(classifier)}, weights

    def restore(self, tensors: Arrays, device: str) -> BaseEstimator:
        classifier = super().restore(tensors, device)
        return classifier.set_output(transform=self.output)

    def _count_units(self) -> int:
        sizes: CNNSizes = self.network
        return sizes.n_layers * sizes.n_parts * sizes.hidden_size


class TokenTable(MLPTable):
    """A fitted :class:`PlugTokenClassifier`."""

    kind: Literal["PlugTokenClassifier"]  # type: ignore[assignment]  # another class of the same values
    network: TokenSizes  # type: ignore[assignment]  # as above

    def restore(self, tensors: Arrays, device: str) -> BaseEstimator:
        classifier: Any = super().restore(tensors, device)
        classifier.labels_tokens_ = self.network.strongest
        return classifier


def expect_weights(
    network: type[nn.Module], sizes: Mapping[str, object]
) -> dict[str, Expected]:
    """List the weights of a network of given sizes, without allocating them.

    Raises a ValueError if no memory could hold them.
    """
    try:
        with torch.device("meta"):
            skeleton = network(**sizes)
    except (RuntimeError, OverflowError) as error:
        raise ValueError(f"its network is too large ({error})") from None
    return {
        name: Expected(tuple(value.shape), str(value.dtype).removeprefix("torch."))
        for name, value in skeleton.state_dict().items()
    }


def list_feature_names(estimator: BaseEstimator) -> list[str] | None:
    names = getattr(estimator, "feature_names_in_", None)
    return None if names is None else [str(name) for name in names]


def read_output(estimator: BaseEstimator) -> str | None:
    config: dict[str, str] = getattr(estimator, "_sklearn_output_config", {})
    return config.get("transform")


def set_features(
    estimator: BaseEstimator, n_features: int, names: list[str] | None
) -> None:
    estimator.n_features_in_ = n_features
    if names is not None:
        check_count("feature_names", len(names), n_features)
        estimator.feature_names_in_ = np.array(names, dtype=object)


def check_count(name: str, found: int, expected: int) -> None:
    if found != expected:
        raise ValueError(f"its {name} must be {expected} in all. Got {found} instead")


def check_positions(name: str, found: Iterable[int], length: int) -> None:
    found = list(found)
    if len(set(found)) < len(found) or max(found) >= length:
        raise ValueError(f"its {name} must differ and be in [0, {length}): {found}")
