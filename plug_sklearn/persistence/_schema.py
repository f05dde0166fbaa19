"""The JSON of an artifact: one estimator, or a pipeline of several."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

import plug_sklearn
from plug_sklearn.persistence._files import Arrays, Expected
from plug_sklearn.persistence._tables import (
    TABLES,
    AggregatorTable,
    CNNTable,
    Described,
    EmbedderTable,
    MLPTable,
    ScalerTable,
    Table,
    TokenTable,
)
from plug_sklearn.persistence._values import describe_parameters, to_plain

#: Changes with every release that writes anything differently.
FORMAT = 1


EstimatorTable = (
    MLPTable | CNNTable | TokenTable | AggregatorTable | EmbedderTable | ScalerTable
)


class Step(Table):
    """A step of a pipeline."""

    name: Annotated[str, Field(min_length=1)]
    estimator: Annotated[EstimatorTable, Field(discriminator="kind")]


class PipelineTable(Table):
    """A fitted :class:`sklearn.pipeline.Pipeline`.

    The names of its tensors begin with the name of the step and a dot.
    """

    kind: Literal["Pipeline"]
    steps: list[Step] = Field(min_length=1)

    @staticmethod
    def describe(pipeline: Pipeline) -> Described:
        """Return what to save of a fitted pipeline."""
        if pipeline.transform_input is not None:
            raise ValueError(
                "The 'transform_input' parameter of Pipeline must be None to be saved. "
                f"Got {pipeline.transform_input!r} instead."
            )
        steps: list[dict[str, Any]] = []
        tensors: Arrays = {}
        for name, step in pipeline.steps:
            values, own = _describe_one(step)
            steps.append({"name": name, "estimator": values})
            tensors |= {f"{name}.{key}": value for key, value in own.items()}
        return {"kind": "Pipeline", "steps": steps}, tensors

    def expect_tensors(self) -> dict[str, Expected]:
        """List the tensors of all steps."""
        expected = [
            (f"{step.name}.{name}", tensor)
            for step in self.steps
            for name, tensor in step.estimator.expect_tensors().items()
        ]
        if len(dict(expected)) < len(expected):
            raise ValueError("its steps have tensors of the same names")
        return dict(expected)

    def restore(self, tensors: Arrays, device: str) -> BaseEstimator:
        """Make the fitted pipeline."""
        names = [step.name for step in self.steps]
        if len(set(names)) < len(names) or any("__" in name for name in names):
            raise ValueError(f"its steps' names must differ and have no '__': {names}")
        steps = []
        for step in self.steps:
            own = {
                name: tensors[f"{step.name}.{name}"]
                for name in step.estimator.expect_tensors()
            }
            steps.append((step.name, step.estimator.restore(own, device)))
        for name, estimator in steps[:-1]:
            if not hasattr(estimator, "transform"):
                raise ValueError(
                    f"its step {name!r} must be the last: it has no transform"
                )
        return Pipeline(steps)


class Artifact(Table):
    """The whole JSON."""

    format: Literal[1]
    versions: dict[str, str]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    estimator: Annotated[EstimatorTable | PipelineTable, Field(discriminator="kind")]


def describe_estimator(estimator: BaseEstimator) -> Described:
    """Return a fitted estimator, or a pipeline of several, as plain values and tensors.

    Raises a ValueError if there is no table for its class, or a value is not plain.
    """
    if type(estimator) is Pipeline:
        return PipelineTable.describe(estimator)
    return _describe_one(estimator)


def _describe_one(estimator: BaseEstimator) -> Described:
    kind = type(estimator).__name__
    ours = StandardScaler if kind == "StandardScaler" else None
    if kind not in TABLES or type(estimator) is not (
        ours or getattr(plug_sklearn, kind)
    ):
        raise ValueError(
            f"The 'estimator' given to save_artifacts must be one of "
            f"{sorted(TABLES)}, or a Pipeline of them. Got {estimator!r} instead: "
            "joblib.dump saves it, as a pickle."
        )
    check_is_fitted(estimator)
    values, tensors = TABLES[kind].describe(estimator)
    parameters = describe_parameters(estimator)
    # Fitted attributes may be numpy scalars, like the parameters they come from.
    return {"kind": kind, "parameters": parameters, **to_plain(values)}, tensors


def validate_artifact(found: dict[str, Any]) -> Artifact:
    """Check the whole JSON.

    Raises a ValueError if it is of another format, or does not match the tables.
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
    """Describe in one line where a JSON does not match its table."""
    wrong = [
        f"{'.'.join(map(str, at['loc']))}: {at['msg'].lower()}"
        for at in error.errors(include_url=False, include_context=False)
    ]
    others = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    return "; ".join(wrong[:3]) + others
