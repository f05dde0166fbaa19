"""One table for each class of estimator: its schema, and how to save and restore it.

A table is a pydantic model that accepts no unknown key and converts no value. None
holds the path of a class or source code, so that a file cannot run code.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from sklearn.base import BaseEstimator
from sklearn.preprocessing import StandardScaler
from torch import nn

import plug_sklearn
from plug_sklearn.embedding.models import require_safetensors
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
            "feature_names": _list_feature_names(classifier),
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
        _check_count("input_shape", prod(self.input_shape), self._count_units())
        _check_count("classes", len(classes), self.network.n_classes)
        classifier.classes_ = classes
        classifier.input_shape_ = tuple(self.input_shape)
        _set_features(classifier, self.input_shape[0], self.feature_names)
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
        return {**values, "output": _read_output(classifier)}, weights

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


class AggregatorTable(Table):
    """A fitted :class:`LayerAggregator`."""

    kind: Literal["LayerAggregator"]
    parameters: Parameters
    input_shape: list[Size] = Field(min_length=3, max_length=3)
    n_features_in: Size
    feature_names: list[str] | None
    layers: list[Position] = Field(min_length=1)
    parts: list[Position] = Field(min_length=1)
    output: Output | None

    @staticmethod
    def describe(aggregator: Any) -> Described:  # noqa: ANN401 - as above
        """Return what to save of a fitted estimator, besides its parameters."""
        values = {
            "input_shape": list(aggregator.input_shape_),
            "n_features_in": aggregator.n_features_in_,
            "feature_names": _list_feature_names(aggregator),
            "layers": list(aggregator.layers_),
            "parts": list(aggregator.parts_),
            "output": _read_output(aggregator),
        }
        return values, {}

    def expect_tensors(self) -> dict[str, Expected]:
        """List the tensors of the estimator: none."""
        return {}

    def restore(self, tensors: Arrays, device: str) -> BaseEstimator:
        """Make the fitted estimator."""
        kind = plug_sklearn.LayerAggregator
        aggregator: Any = read_parameters(kind, self.parameters)
        n_layers, n_parts, hidden_size = self.input_shape
        _check_positions("layers", self.layers, n_layers)
        _check_positions("parts", self.parts, n_parts)
        # Activations of two axes are one layer and part, whose units are features.
        possible = {n_layers, hidden_size} if n_layers == n_parts == 1 else {n_layers}
        if self.n_features_in not in possible:
            raise ValueError(f"its n_features_in must be among {sorted(possible)}")
        aggregator.input_shape_ = tuple(self.input_shape)
        aggregator.layers_ = tuple(self.layers)
        aggregator.parts_ = tuple(self.parts)
        _set_features(aggregator, self.n_features_in, self.feature_names)
        return aggregator.set_output(transform=self.output)


class Turn(Table):
    """What a chat template wrote around a message in ``fit``."""

    start: str
    end: str
    stripped_left: str
    stripped_right: str


class Chat(Table):
    """The chat template of conversations in ``fit``."""

    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    time: str | None


class EmbedderTable(Table):
    """A fitted :class:`HFEmbeddingTransformer`, without the weights of its model."""

    kind: Literal["HFEmbeddingTransformer"]
    parameters: Parameters
    layers: list[Position] = Field(min_length=1)
    parts: list[str] = Field(min_length=1)
    hidden_size: Annotated[int, Field(ge=1, le=2**20)]
    n_model_layers: Annotated[int, Field(ge=1, le=2**16)]
    model_revision: str | None
    origin: str | None
    stack: Literal["encoder", "decoder"] | None
    # Only written with a chat template, so that older files are valid too.
    turn: Turn | None = None
    # As above, with conversations.
    chat: Chat | None = None

    @staticmethod
    def describe(embedder: Any) -> Described:  # noqa: ANN401 - as above
        """Return what to save of a fitted estimator, besides its parameters."""
        values = {
            "layers": list(embedder.layers_),
            "parts": list(embedder.parts_),
            "hidden_size": embedder.hidden_size_,
            "n_model_layers": embedder.n_model_layers_,
            "model_revision": embedder.model_revision_,
            "origin": embedder._find_origin(),
            "stack": embedder._stack,
        }
        turn = embedder._find_turn()
        if turn is not None:
            values["turn"] = asdict(turn)
        chat = embedder._find_chat()
        if chat is not None:
            values["chat"] = asdict(chat)
        return values, {}

    def expect_tensors(self) -> dict[str, Expected]:
        """List the tensors of the estimator: none."""
        return {}

    def restore(self, tensors: Arrays, device: str) -> BaseEstimator:
        """Make the fitted estimator."""
        kind = plug_sklearn.HFEmbeddingTransformer
        embedder: Any = read_parameters(kind, self.parameters, device=device)
        if embedder.adapter is not None:
            # An adapter on the hub is checked once its files have been downloaded.
            folder = Path(embedder.adapter).expanduser()
            if folder.is_dir():
                require_safetensors(str(folder), str(embedder.adapter))
        _check_positions("layers", self.layers, self.n_model_layers)
        if tuple(self.parts) != embedder._name_parts():
            raise ValueError(f"its parts are not those of its parameters: {self.parts}")
        embedder.layers_ = tuple(self.layers)
        embedder.parts_ = tuple(self.parts)
        embedder.hidden_size_ = self.hidden_size
        embedder.n_model_layers_ = self.n_model_layers
        embedder.model_revision_ = self.model_revision
        embedder._origin = self.origin
        embedder._stack = self.stack
        embedder._turn = None if self.turn is None else self.turn.model_dump()
        embedder._turn_is_open = embedder.generation_prompt
        embedder._chat = None if self.chat is None else self.chat.model_dump()
        embedder._poolings = embedder._read_poolings()
        return embedder


class ScalerTable(Table):
    """A fitted :class:`sklearn.preprocessing.StandardScaler`."""

    kind: Literal["StandardScaler"]
    parameters: Parameters
    n_features: Size
    n_samples_seen: Size
    feature_names: list[str] | None
    output: Output | None

    #: Attributes of the scaler that are tensors.
    learnt: ClassVar[tuple[str, ...]] = ("mean", "var", "scale")

    @staticmethod
    def describe(scaler: Any) -> Described:  # noqa: ANN401 - as above
        """Return what to save of a fitted estimator, besides its parameters."""
        if np.ndim(scaler.n_samples_seen_):
            raise ValueError(
                "The StandardScaler to save must have been fitted on data without "
                "missing values."
            )
        values = {
            "n_features": scaler.n_features_in_,
            "n_samples_seen": int(scaler.n_samples_seen_),
            "feature_names": _list_feature_names(scaler),
            "output": _read_output(scaler),
        }
        learnt = {name: getattr(scaler, f"{name}_") for name in ScalerTable.learnt}
        tensors = {
            name: np.asarray(value, dtype=np.float64)
            for name, value in learnt.items()
            if value is not None
        }
        return values, tensors

    def expect_tensors(self) -> dict[str, Expected]:
        """List the tensors of the estimator."""
        names: tuple[str, ...] = ()
        if self.parameters.get("with_std"):
            names = self.learnt
        elif self.parameters.get("with_mean"):
            names = ("mean",)
        return {name: Expected((self.n_features,), "float64") for name in names}

    def restore(self, tensors: Arrays, device: str) -> BaseEstimator:
        """Make the fitted estimator."""
        scaler = read_parameters(StandardScaler, self.parameters)
        for name in self.learnt:
            setattr(scaler, f"{name}_", tensors.get(name))
        if scaler.scale_ is not None and not (scaler.scale_ > 0).all():
            raise ValueError("its tensor 'scale' must be above 0")
        scaler.n_samples_seen_ = np.int64(self.n_samples_seen)
        _set_features(scaler, self.n_features, self.feature_names)
        return scaler.set_output(transform=self.output)


TABLES: dict[str, Any] = {
    "HFEmbeddingTransformer": EmbedderTable,
    "LayerAggregator": AggregatorTable,
    "PlugCNNClassifier": CNNTable,
    "PlugMLPClassifier": MLPTable,
    "PlugTokenClassifier": TokenTable,
    "StandardScaler": ScalerTable,
}


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


def _list_feature_names(estimator: BaseEstimator) -> list[str] | None:
    names = getattr(estimator, "feature_names_in_", None)
    return None if names is None else [str(name) for name in names]


def _read_output(estimator: BaseEstimator) -> str | None:
    config: dict[str, str] = getattr(estimator, "_sklearn_output_config", {})
    return config.get("transform")


def _set_features(
    estimator: BaseEstimator, n_features: int, names: list[str] | None
) -> None:
    estimator.n_features_in_ = n_features
    if names is not None:
        _check_count("feature_names", len(names), n_features)
        estimator.feature_names_in_ = np.array(names, dtype=object)


def _check_count(name: str, found: int, expected: int) -> None:
    if found != expected:
        raise ValueError(f"its {name} must be {expected} in all. Got {found} instead")


def _check_positions(name: str, found: Iterable[int], length: int) -> None:
    found = list(found)
    if len(set(found)) < len(found) or max(found) >= length:
        raise ValueError(f"its {name} must differ and be in [0, {length}): {found}")
