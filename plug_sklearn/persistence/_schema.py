"""The JSON of an artifact: one estimator, which may contain others."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from plug_sklearn.persistence._nested_tables import AnyTable
from plug_sklearn.persistence._tables import Table

#: Changes with every release that writes anything differently.
FORMAT = 1


class Artifact(Table):
    """The whole JSON."""

    format: Literal[1]
    versions: dict[str, str]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    estimator: AnyTable


def validate_artifact(found: dict[str, Any]) -> Artifact:
    """Check the whole JSON.

    Raises a ValueError if it is of another format, or does not match the tables.
    """
    number = found.get("format")
    if type(number) is not int or number != FORMAT:
        raise ValueError(
            f"it has format {number!r}, and this release of plug_sklearn reads format "
            f"{FORMAT}"
        )
    try:
        return Artifact.model_validate(found)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
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
