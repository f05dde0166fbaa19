"""Tables of the steps before a probe: the embedder and the aggregator."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from sklearn.base import BaseEstimator

from plug_sklearn._activations import PART_NAMES
from plug_sklearn.embedding import HFEmbeddingTransformer
from plug_sklearn.embedding.models import require_safetensors
from plug_sklearn.features import LayerAggregator
from plug_sklearn.persistence._files import Arrays
from plug_sklearn.persistence._tables import (
    EstimatorTable,
    FeatureNames,
    Fitted,
    Output,
    Position,
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
        # Activations with two axes have one layer and part; their units are features.
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
    def describe_more(cls, embedder: Fitted, tensors: Arrays) -> dict[str, Any]:
        written = {"turn": embedder._find_turn(), "chat": embedder._find_chat()}
        return {
            "origin": embedder._find_origin(),
            **{name: asdict(own) for name, own in written.items() if own is not None},
        }

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
