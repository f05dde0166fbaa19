"""Tables of the package's classifiers."""

from collections.abc import Mapping
from math import prod
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from pydantic import Field
from sklearn.base import BaseEstimator
from torch import nn

from plug_sklearn.classifiers import (
    PlugCNNClassifier,
    PlugMLPClassifier,
    PlugStackClassifier,
    PlugTokenClassifier,
)
from plug_sklearn.persistence._files import Arrays, Expected
from plug_sklearn.persistence._tables import (
    Described,
    EstimatorTable,
    FeatureNames,
    Fitted,
    Labels,
    Output,
    Position,
    Probability,
    Shapes,
    Size,
    Table,
    check_count,
)

T = TypeVar("T")

#: What files call modules of a network: files of all releases use the first names.
_NAMES_IN_FILES = {"temperature": "sharpness", "components": "projection"}
_NAMES_IN_NETWORKS = {name: module for module, name in _NAMES_IN_FILES.items()}


class NetworkSizes(Table):
    """The parameters that all networks have."""

    n_classes: Size
    n_members: Size
    linear_path: bool
    input_dropout: Probability
    n_kept: Size | None


class MLPSizes(NetworkSizes):
    """The parameters of an ``MLPNetwork``."""

    n_features: Size
    first: Size
    second: Size
    last: Size
    dropout: Probability


class CNNSizes(NetworkSizes):
    """The parameters of a ``CNNNetwork``."""

    n_layers: Size
    n_parts: Size
    hidden_size: Size
    first: Size
    second: Size
    projection: Size
    head: Size
    dropout: Probability
    conv_over: Literal["layers", "units"]
    normalise: bool
    affine: bool

    @property
    def n_features(self) -> int:
        """The number of hidden units in a sample."""
        return self.n_layers * self.n_parts * self.hidden_size


class TokenSizes(NetworkSizes):
    """The parameters of a ``TokenNetwork``."""

    n_features: Size
    n_heads: Size
    aggregation: Literal["attention", "max", "mean", "rolling", "softmax"]
    window: Size
    strongest: bool


class NetworkTable(EstimatorTable):
    """A fitted classifier that holds a network."""

    classes: Labels
    input_shape: list[Size] = Field(min_length=1, max_length=16)
    feature_names: FeatureNames
    n_epochs: Position
    best_epoch: Position
    monitor: str | None
    network: Any

    attributes: ClassVar[Mapping[str, str]] = {
        "input_shape": "input_shape_",
        "n_epochs": "n_iter_",
        "best_epoch": "best_epoch_",
        "monitor": "monitor_",
    }

    @classmethod
    def describe_more(cls, classifier: Fitted) -> Described:
        sizes, weights = classifier._describe_net()
        weights = rename_modules(weights, _NAMES_IN_FILES)
        monitor = classifier.monitor_ if isinstance(classifier.monitor_, str) else None
        return {"monitor": monitor, "network": sizes}, weights

    def expect_tensors(self) -> dict[str, Expected]:
        weights = expect_weights(self.of._network, self.network.model_dump())
        return rename_modules(weights, _NAMES_IN_FILES)

    def restore_more(self, classifier: Fitted, tensors: Arrays) -> None:
        check_count("input_shape", prod(self.input_shape), self.network.n_features)
        check_count("classes", len(classifier.classes_), self.network.n_classes)
        classifier.n_features_in_ = self.input_shape[0]
        weights = rename_modules(tensors, _NAMES_IN_NETWORKS)
        classifier._restore_net(self.network.model_dump(), weights)


class MLPTable(NetworkTable):
    """A fitted :class:`PlugMLPClassifier`."""

    kind: Literal["PlugMLPClassifier"]
    network: MLPSizes

    of: ClassVar[type[BaseEstimator]] = PlugMLPClassifier


class CNNTable(NetworkTable):
    """A fitted :class:`PlugCNNClassifier`."""

    kind: Literal["PlugCNNClassifier"]
    network: CNNSizes
    output: Output

    of: ClassVar[type[BaseEstimator]] = PlugCNNClassifier


class TokenTable(NetworkTable):
    """A fitted :class:`PlugTokenClassifier`."""

    kind: Literal["PlugTokenClassifier"]
    network: TokenSizes

    of: ClassVar[type[BaseEstimator]] = PlugTokenClassifier

    def restore_more(self, classifier: Fitted, tensors: Arrays) -> None:
        super().restore_more(classifier, tensors)
        classifier.labels_tokens_ = self.network.strongest


def rename_modules(weights: Mapping[str, T], names: Mapping[str, str]) -> dict[str, T]:
    """Rename the modules of a network that its weights belong to."""
    renamed = {}
    for weight, value in weights.items():
        module, _, own = weight.partition(".")
        renamed[f"{names.get(module, module)}.{own}"] = value
    return renamed


def expect_weights(
    network: type[nn.Module], sizes: Mapping[str, object]
) -> dict[str, Expected]:
    """List the weights of a network of given sizes, without allocating them."""
    try:
        with torch.device("meta"):
            skeleton = network(**sizes)
    except (RuntimeError, OverflowError) as error:
        raise ValueError(f"its network is too large ({error})") from None
    return {
        name: Expected(tuple(value.shape), str(value.dtype).removeprefix("torch."))
        for name, value in skeleton.state_dict().items()
    }


class StackTable(EstimatorTable):
    """A fitted :class:`PlugStackClassifier`."""

    kind: Literal["PlugStackClassifier"]
    classes: Labels
    input_shape: list[Size] = Field(min_length=1, max_length=3)
    feature_names: FeatureNames
    n_layers: Size
    n_parts: Size
    hidden_size: Size
    n_chosen: Size
    is_tuned: bool
    temperature: Annotated[float, Field(gt=0)]

    of: ClassVar[type[BaseEstimator]] = PlugStackClassifier
    attributes: ClassVar[Mapping[str, str]] = {
        "input_shape": "input_shape_",
        "temperature": "temperature_",
    }
    #: The attribute of each tensor.
    learnt: ClassVar[Mapping[str, str]] = {
        "weights": "weights_",
        "C": "C_",
        "coefficients": "_coefficients",
        "intercept": "intercept_",
        "held_out_log_loss": "held_out_log_loss_",
    }

    @classmethod
    def describe_more(cls, classifier: Fitted) -> Described:
        tensors = {name: getattr(classifier, own) for name, own in cls.learnt.items()}
        if not np.isfinite(tensors["held_out_log_loss"]).all():
            del tensors["held_out_log_loss"]
        n_layers, n_parts = tensors["weights"].shape
        n_chosen, _, hidden_size = tensors["coefficients"].shape
        values = {
            "n_layers": n_layers,
            "n_parts": n_parts,
            "hidden_size": hidden_size,
            "n_chosen": n_chosen,
            "is_tuned": "held_out_log_loss" in tensors,
        }
        return values, tensors

    def expect_tensors(self) -> dict[str, Expected]:
        n_classes = len(self.classes.values)
        n_logits = 1 if n_classes == 2 else n_classes
        shapes: Shapes = dict.fromkeys(self.learnt, (self.n_layers, self.n_parts))
        if not self.is_tuned:
            del shapes["held_out_log_loss"]
        shapes |= {
            "coefficients": (self.n_chosen, n_logits, self.hidden_size),
            "intercept": (n_logits,),
        }
        return {name: Expected(shape, "float64") for name, shape in shapes.items()}

    def restore_more(self, classifier: Fitted, tensors: Arrays) -> None:
        n_units = self.n_layers * self.n_parts * self.hidden_size
        check_count("input_shape", prod(self.input_shape), n_units)
        if (tensors["weights"] < 0).any():
            raise ValueError("its tensor 'weights' must not be below 0")
        n_chosen = int(np.count_nonzero(tensors["weights"]))
        check_count("n_chosen", self.n_chosen, n_chosen)
        classifier.n_features_in_ = self.input_shape[0]
        unknown = np.full_like(tensors["weights"], np.nan)
        for name, own in self.learnt.items():
            setattr(classifier, own, tensors.get(name, unknown))
