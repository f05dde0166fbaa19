"""What the JSON of an artifact may say: a closed set of names, numbers and lists.

A file is described by pydantic models that forbid unknown keys and convert nothing.
None of them holds the path of a class or source code.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

#: Raised by a release that writes anything differently.
FORMAT = 1

Size = Annotated[int, Field(ge=1, le=2**40)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Position = Annotated[int, Field(ge=0)]
Output = Literal["default", "pandas", "polars"]
# Plain values of any kind: scikit-learn's constraints say which ones they may be.
Parameters = dict[str, Any]


class Record(BaseModel):
    """A JSON object with the keys below and no other."""

    model_config = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, frozen=True
    )


class Labels(Record):
    """Classes: their dtype as numpy names it, ``"str"`` for strings of any length."""

    dtype: str
    values: list[bool | int | float | str] = Field(min_length=2)


class MLPSizes(Record):
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


class CNNSizes(Record):
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


class ClassifierRecord(Record):
    """What both classifiers have."""

    parameters: Parameters
    classes: Labels
    input_shape: list[Size] = Field(min_length=1, max_length=16)
    feature_names: list[str] | None
    n_epochs: Position
    best_epoch: Position
    monitor: str | None


class MLPRecord(ClassifierRecord):
    """A fitted :class:`~plug_sklearn.PlugMLPClassifier`."""

    kind: Literal["PlugMLPClassifier"]
    network: MLPSizes


class CNNRecord(ClassifierRecord):
    """A fitted :class:`~plug_sklearn.PlugCNNClassifier`."""

    kind: Literal["PlugCNNClassifier"]
    network: CNNSizes
    output: Output | None


class AggregatorRecord(Record):
    """A fitted :class:`~plug_sklearn.LayerAggregator`."""

    kind: Literal["LayerAggregator"]
    parameters: Parameters
    input_shape: list[Size] = Field(min_length=3, max_length=3)
    n_features_in: Size
    feature_names: list[str] | None
    layers: list[Position] = Field(min_length=1)
    parts: list[Position] = Field(min_length=1)
    output: Output | None


class TurnRecord(Record):
    """What a chat template wrote around a message in ``fit``."""

    start: str
    end: str
    stripped_left: str
    stripped_right: str


class EmbedderRecord(Record):
    """A fitted :class:`~plug_sklearn.HFEmbeddingTransformer`: no weights."""

    kind: Literal["HFEmbeddingTransformer"]
    parameters: Parameters
    layers: list[Position] = Field(min_length=1)
    parts: list[Literal["rs", "attn", "mlp"]] = Field(min_length=1)
    hidden_size: Annotated[int, Field(ge=1, le=2**20)]
    n_model_layers: Annotated[int, Field(ge=1, le=2**16)]
    model_revision: str | None
    origin: str | None
    stack: Literal["encoder", "decoder"] | None
    # Only written with a chat template: other files are as they ever were.
    turn: TurnRecord | None = None


class ScalerRecord(Record):
    """A fitted :class:`sklearn.preprocessing.StandardScaler`."""

    kind: Literal["StandardScaler"]
    parameters: Parameters
    n_features: Size
    n_samples_seen: Size
    feature_names: list[str] | None
    output: Output | None


EstimatorRecord = (
    MLPRecord | CNNRecord | AggregatorRecord | EmbedderRecord | ScalerRecord
)


class Step(Record):
    """A step of a pipeline."""

    name: Annotated[str, Field(min_length=1)]
    estimator: Annotated[EstimatorRecord, Field(discriminator="kind")]


class PipelineRecord(Record):
    """A fitted :class:`sklearn.pipeline.Pipeline`."""

    kind: Literal["Pipeline"]
    steps: list[Step] = Field(min_length=1)


class Artifact(Record):
    """The whole JSON."""

    format: Literal[1]
    versions: dict[str, str]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    estimator: Annotated[EstimatorRecord | PipelineRecord, Field(discriminator="kind")]


def validate_artifact(found: dict[str, Any]) -> Artifact:
    """Check the whole JSON.

    Parameters
    ----------
    found : dict
        What the file holds.

    Returns
    -------
    Artifact
        The same.

    Raises
    ------
    ValueError
        If it is of another format, or says what the schema does not know.
    """
    number = found.get("format")
    if type(number) is not int or number != FORMAT:
        raise ValueError(
            f"it has format {number!r}, where this release of plug_sklearn reads "
            f"format {FORMAT}"
        )
    try:
        return Artifact.model_validate(found)
    except ValidationError as error:
        raise ValueError(explain_validation(error)) from None


def explain_validation(error: ValidationError) -> str:
    """Say where a JSON differs from its schema, in one line."""
    wrong = [
        f"{'.'.join(map(str, at['loc']))}: {at['msg'].lower()}"
        for at in error.errors(include_url=False, include_context=False)
    ]
    others = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    return "; ".join(wrong[:3]) + others
