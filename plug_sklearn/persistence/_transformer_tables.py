"""Tables of the embedder, the aggregator, and scikit-learn's scalers and PCA."""

from collections.abc import Mapping
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    RobustScaler,
    StandardScaler,
)

from plug_sklearn._activations import PART_NAMES
from plug_sklearn.embedding import HFEmbeddingTransformer
from plug_sklearn.embedding.models import require_safetensors
from plug_sklearn.features import LayerAggregator
from plug_sklearn.persistence._files import Arrays, Expected
from plug_sklearn.persistence._tables import (
    ArraysTable,
    Described,
    EstimatorTable,
    FeatureNames,
    Fitted,
    Output,
    Position,
    Shapes,
    Size,
    Table,
    check_positions,
)


class AggregatorTable(EstimatorTable):
    """A fitted :class:`LayerAggregator`."""

    kind: Literal["LayerAggregator"]
    input_shape: list[Size] = Field(min_length=3, max_length=3)
    n_features_in: Size
    feature_names: FeatureNames
    layers: list[Position] = Field(min_length=1)
    parts: list[Position] = Field(min_length=1)
    output: Output
    # Files of earlier releases lack these.
    model_layers: list[Position] | None = None
    part_names: list[str] | None = None

    of: ClassVar[type[BaseEstimator]] = LayerAggregator
    attributes: ClassVar[Mapping[str, str]] = {
        "input_shape": "input_shape_",
        "n_features_in": "n_features_in_",
        "layers": "layers_",
        "parts": "parts_",
        "model_layers": "model_layers_",
        "part_names": "part_names_",
    }

    def restore_more(self, aggregator: Fitted, tensors: Arrays) -> None:
        n_layers, n_parts, hidden_size = self.input_shape
        check_positions("layers", self.layers, n_layers)
        check_positions("parts", self.parts, n_parts)
        # Activations with two axes have one layer and part; their hidden units are
        # features.
        possible = {n_layers, hidden_size} if n_layers == n_parts == 1 else {n_layers}
        if self.n_features_in not in possible:
            raise ValueError(f"its n_features_in must be among {sorted(possible)}")
        for name, found, n_names in (
            ("model_layers", self.model_layers, n_layers),
            ("part_names", self.part_names, n_parts),
        ):
            if found is not None and len(set(found)) != n_names:
                raise ValueError(f"its {name} must be {n_names} distinct names")
        if not self.part_names:
            given = aggregator.part_names
            known = PART_NAMES if n_parts == len(PART_NAMES) else given
            aggregator.part_names_ = None if known is None else tuple(known)


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


class EmbedderTable(EstimatorTable):
    """A fitted :class:`HFEmbeddingTransformer`, without the weights of its model."""

    kind: Literal["HFEmbeddingTransformer"]
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

    of: ClassVar[type[BaseEstimator]] = HFEmbeddingTransformer
    attributes: ClassVar[Mapping[str, str]] = {
        "layers": "layers_",
        "parts": "parts_",
        "hidden_size": "hidden_size_",
        "n_model_layers": "n_model_layers_",
        "model_revision": "model_revision_",
        "stack": "_stack",
    }

    @classmethod
    def describe_more(cls, embedder: Fitted) -> Described:
        values: dict[str, Any] = {"origin": embedder._find_origin()}
        written = {"turn": embedder._find_turn(), "chat": embedder._find_chat()}
        values |= {name: asdict(own) for name, own in written.items() if own}
        return values, {}

    def restore_more(self, embedder: Fitted, tensors: Arrays) -> None:
        if embedder.adapter is not None:
            # An adapter on the hub is checked once its files have been downloaded.
            folder = Path(embedder.adapter).expanduser()
            if folder.is_dir():
                require_safetensors(str(folder), str(embedder.adapter))
        check_positions("layers", self.layers, self.n_model_layers)
        if tuple(self.parts) != embedder._name_parts():
            raise ValueError(f"its parts are not those of its parameters: {self.parts}")
        embedder._origin = self.origin
        embedder._turn = None if self.turn is None else self.turn.model_dump()
        embedder._chat = None if self.chat is None else self.chat.model_dump()
        embedder._reading = embedder._describe_reading() | {"layers": embedder.layers_}


class ScalerTable(EstimatorTable):
    """A fitted :class:`sklearn.preprocessing.StandardScaler`."""

    kind: Literal["StandardScaler"]
    n_features: Size
    n_samples_seen: Size
    feature_names: FeatureNames
    output: Output

    of: ClassVar[type[BaseEstimator]] = StandardScaler
    attributes: ClassVar[Mapping[str, str]] = {"n_features": "n_features_in_"}
    #: Attributes of the scaler that are tensors.
    learnt: ClassVar[tuple[str, ...]] = ("mean", "var", "scale")

    @classmethod
    def describe_more(cls, scaler: Fitted) -> Described:
        if np.ndim(scaler.n_samples_seen_):
            raise ValueError(
                "The StandardScaler to save must have been fitted on data without "
                "missing values."
            )
        learnt = {name: getattr(scaler, f"{name}_") for name in cls.learnt}
        tensors = {
            name: np.asarray(value, dtype=np.float64)
            for name, value in learnt.items()
            if value is not None
        }
        return {"n_samples_seen": int(scaler.n_samples_seen_)}, tensors

    def expect_tensors(self) -> dict[str, Expected]:
        names: tuple[str, ...] = ()
        if self.parameters.get("with_std"):
            names = self.learnt
        elif self.parameters.get("with_mean"):
            names = ("mean",)
        return {name: Expected((self.n_features,), "float64") for name in names}

    def restore_more(self, scaler: Fitted, tensors: Arrays) -> None:
        for name in self.learnt:
            setattr(scaler, f"{name}_", tensors.get(name))
        if scaler.scale_ is not None and not (scaler.scale_ > 0).all():
            raise ValueError("its tensor 'scale' must be above 0")
        scaler.n_samples_seen_ = np.int64(self.n_samples_seen)


class _VectorsTable(ArraysTable):
    """A scaler whose tensors have a number for each feature."""

    def list_shapes(self) -> Shapes:
        return dict.fromkeys(self.learnt, (self.n_features,))


class _CountingTable(_VectorsTable):
    """A scaler that counts the samples that it has seen."""

    n_samples_seen: Size

    attributes: ClassVar[Mapping[str, str]] = {
        **_VectorsTable.attributes,
        "n_samples_seen": "n_samples_seen_",
    }
    above_zero: ClassVar[frozenset[str]] = frozenset({"scale"})


class MinMaxTable(_CountingTable):
    """A fitted :class:`sklearn.preprocessing.MinMaxScaler`."""

    kind: Literal["MinMaxScaler"]

    of: ClassVar[type[BaseEstimator]] = MinMaxScaler
    learnt: ClassVar[tuple[str, ...]] = (
        *("scale", "min", "data_min", "data_max", "data_range"),
    )


class MaxAbsTable(_CountingTable):
    """A fitted :class:`sklearn.preprocessing.MaxAbsScaler`."""

    kind: Literal["MaxAbsScaler"]

    of: ClassVar[type[BaseEstimator]] = MaxAbsScaler
    learnt: ClassVar[tuple[str, ...]] = ("scale", "max_abs")


class RobustTable(_VectorsTable):
    """A fitted :class:`sklearn.preprocessing.RobustScaler`."""

    kind: Literal["RobustScaler"]

    of: ClassVar[type[BaseEstimator]] = RobustScaler
    learnt: ClassVar[tuple[str, ...]] = ("center", "scale")
    optional: ClassVar[frozenset[str]] = frozenset({"center", "scale"})
    above_zero: ClassVar[frozenset[str]] = frozenset({"scale"})

    def restore_more(self, estimator: Fitted, tensors: Arrays) -> None:
        super().restore_more(estimator, tensors)
        for name, wanted in (
            ("center", estimator.with_centering),
            ("scale", estimator.with_scaling),
        ):
            if wanted != (name in self.dtypes):
                raise ValueError(
                    f"its dtypes must {'' if wanted else 'not '}name {name}"
                )


class PCATable(ArraysTable):
    """A fitted :class:`sklearn.decomposition.PCA`."""

    kind: Literal["PCA"]
    n_components: Size
    n_samples: Size
    noise_variance: float = Field(ge=0)

    of: ClassVar[type[BaseEstimator]] = PCA
    attributes: ClassVar[Mapping[str, str]] = {
        **ArraysTable.attributes,
        "n_components": "n_components_",
        "n_samples": "n_samples_",
        "noise_variance": "noise_variance_",
    }
    learnt: ClassVar[tuple[str, ...]] = (
        *("components", "mean", "explained_variance"),
        *("explained_variance_ratio", "singular_values"),
    )

    @classmethod
    def describe_more(cls, estimator: Fitted) -> Described:
        values, tensors = super().describe_more(estimator)
        noise = float(estimator.noise_variance_)
        # Undefined where all components are kept, in some versions.
        values["noise_variance"] = max(noise, 0.0) if isfinite(noise) else 0.0
        return values, tensors

    def list_shapes(self) -> Shapes:
        shapes: Shapes = dict.fromkeys(self.learnt, (self.n_components,))
        shapes["components"] = self.n_components, self.n_features
        shapes["mean"] = (self.n_features,)
        return shapes

    def restore_more(self, estimator: Fitted, tensors: Arrays) -> None:
        super().restore_more(estimator, tensors)
        if (estimator.explained_variance_ < 0).any():
            raise ValueError("its tensor 'explained_variance' must be 0 or more")
