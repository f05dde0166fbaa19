"""Tables of the steps before a probe: the embedder and the aggregator."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from sklearn.base import BaseEstimator

import plug_sklearn
from plug_sklearn._positions import PART_NAMES
from plug_sklearn.embedding.models import require_safetensors
from plug_sklearn.persistence._files import Arrays, Expected
from plug_sklearn.persistence._tables import (
    Described,
    Output,
    Parameters,
    Position,
    Size,
    Table,
    check_positions,
    list_feature_names,
    read_output,
    set_features,
)
from plug_sklearn.persistence._values import read_parameters


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
    # Files of earlier releases lack these.
    model_layers: list[Position] | None = None
    part_names: list[str] | None = None

    @staticmethod
    def describe(aggregator: Any) -> Described:  # noqa: ANN401 - as above
        """Return what to save of a fitted estimator, besides its parameters."""
        values = {
            "input_shape": list(aggregator.input_shape_),
            "n_features_in": aggregator.n_features_in_,
            "feature_names": list_feature_names(aggregator),
            "layers": list(aggregator.layers_),
            "parts": list(aggregator.parts_),
            "output": read_output(aggregator),
            "model_layers": _to_list(aggregator.model_layers_),
            "part_names": _to_list(aggregator.part_names_),
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
        check_positions("layers", self.layers, n_layers)
        check_positions("parts", self.parts, n_parts)
        # Activations with two axes have one layer and part; their units are features.
        possible = {n_layers, hidden_size} if n_layers == n_parts == 1 else {n_layers}
        if self.n_features_in not in possible:
            raise ValueError(f"its n_features_in must be among {sorted(possible)}")
        aggregator.input_shape_ = tuple(self.input_shape)
        for name, found, n_names in (
            ("model_layers", self.model_layers, n_layers),
            ("part_names", self.part_names, n_parts),
        ):
            if found is not None and len(set(found)) != n_names:
                raise ValueError(f"its {name} must be {n_names} distinct names")
        aggregator.model_layers_ = _to_tuple(self.model_layers)
        known = PART_NAMES if n_parts == len(PART_NAMES) else aggregator.part_names
        aggregator.part_names_ = _to_tuple(self.part_names or known)
        aggregator.layers_ = tuple(self.layers)
        aggregator.parts_ = tuple(self.parts)
        set_features(aggregator, self.n_features_in, self.feature_names)
        return aggregator.set_output(transform=self.output)


def _to_list(names: Sequence[Any] | None) -> list[Any] | None:
    return None if names is None else list(names)


def _to_tuple(names: Sequence[Any] | None) -> tuple[Any, ...] | None:
    return None if names is None else tuple(names)


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
        check_positions("layers", self.layers, self.n_model_layers)
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
        embedder._chat = None if self.chat is None else self.chat.model_dump()
        embedder._reading = embedder._describe_reading() | {"layers": embedder.layers_}
        return embedder
