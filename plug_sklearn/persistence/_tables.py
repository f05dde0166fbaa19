"""The base classes of tables: what an artifact holds of each class of estimators.

A table is a pydantic model that accepts no unknown key and converts no value. No table
holds the path of a class or source code, so that a file cannot run code.
"""

from abc import abstractmethod
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from scipy.sparse import issparse
from sklearn.base import BaseEstimator

from plug_sklearn.persistence._files import Arrays, Expected
from plug_sklearn.persistence._values import (
    describe_parameters,
    read_parameters,
    to_plain,
)

Size = Annotated[int, Field(ge=1, le=2**40)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Position = Annotated[int, Field(ge=0)]
#: Plain values of any kind, which the estimator's own constraints check.
Parameters = dict[str, Any]
FeatureNames = list[str] | None
#: The container that ``set_output`` asks for.
Output = Literal["default", "pandas", "polars"] | None
#: A fitted estimator of the class of a table. Most are untyped.
Fitted = Any
#: A table's values and its tensors, by name.
Described = tuple[dict[str, Any], Arrays]
Shapes = dict[str, tuple[int, ...]]

#: Types of numbers that labels may have, as numpy names them.
_NUMBERS = frozenset(
    [
        "bool",
        *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
        *(f"float{bits}" for bits in (16, 32, 64)),
    ]
)


class Table(BaseModel):
    """A JSON object with exactly the keys of its fields."""

    model_config = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, frozen=True
    )


class Labels(Table):
    """Classes with their dtype, as numpy names it; ``"str"`` for strings."""

    dtype: str
    values: list[bool | int | float | str] = Field(min_length=2)

    @staticmethod
    def describe(classes: NDArray[Any]) -> dict[str, Any]:
        """Return classes, of shape (n_classes,), as plain values with their dtype."""
        kind = "str" if classes.dtype.kind == "U" else classes.dtype.name
        values = classes.tolist()
        strings = kind in ("str", "object") and all(isinstance(v, str) for v in values)
        if kind not in _NUMBERS and not strings:
            raise ValueError(
                "Classes must be numbers, bools or strings to be saved. Got an array "
                f"of {classes.dtype}: {values!r} instead."
            )
        return {"dtype": kind, "values": values}

    def read(self) -> NDArray[Any]:
        """Return the array of classes, which must be distinct and sorted."""
        kind, values = self.dtype, self.values
        if kind not in (*_NUMBERS, "str", "object"):
            raise ValueError(f"its classes have dtype {kind!r}, which no file has")
        expected = {"bool": bool, "str": str, "object": str}.get(
            kind, float if kind.startswith("float") else int
        )
        if not all(type(value) is expected for value in values):
            raise ValueError(f"its classes are not all of dtype {kind!r}: {values!r}")
        try:
            classes = np.array(values, dtype=kind)
        except OverflowError:
            raise ValueError(f"its classes do not fit {kind!r}: {values!r}") from None
        sorts = all(one < next_ for one, next_ in pairwise(values))  # type: ignore[operator]  # all are of one type
        if classes.tolist() != values or not sorts:
            raise ValueError(f"its classes are not distinct and sorted: {values!r}")
        return classes


class EstimatorTable(Table):
    """A fitted estimator: its parameters, fitted attributes and tensors.

    A subclass declares a field for each value that it saves. Fields named in
    ``attributes`` are read from and set to attributes. So are ``classes``,
    ``feature_names`` and ``output``, if it has them. The methods do the rest.
    """

    parameters: Parameters

    #: The class of the estimators.
    of: ClassVar[type[BaseEstimator]]
    #: The attribute of each field that is one.
    attributes: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def describe(cls, estimator: Fitted) -> Described:
        """Return what to save of a fitted estimator."""
        more, tensors = cls.describe_more(estimator)
        values = {
            "kind": cls.of.__name__,
            "parameters": describe_parameters(estimator),
            **{name: getattr(estimator, own) for name, own in cls.attributes.items()},
        }
        if "classes" in cls.model_fields:
            values["classes"] = Labels.describe(estimator.classes_)
        if "feature_names" in cls.model_fields:
            names = getattr(estimator, "feature_names_in_", None)
            values["feature_names"] = None if names is None else list(map(str, names))
        if "output" in cls.model_fields:
            config = getattr(estimator, "_sklearn_output_config", {})
            values["output"] = config.get("transform")
        # Fitted attributes may be numpy scalars, like the parameters they come from.
        return to_plain(values | more), tensors

    @classmethod
    def describe_more(cls, estimator: Fitted) -> Described:
        """Return the values of the other fields, and the tensors."""
        return {}, {}

    def expect_tensors(self) -> dict[str, Expected]:
        """List the tensors of the estimator, without allocating them."""
        return {}

    def restore(self, tensors: Arrays, device: str) -> BaseEstimator:
        """Make the fitted estimator."""
        has_device = "device" in self.of._get_param_names()
        others = {"device": device} if has_device else {}
        estimator: Fitted = read_parameters(self.of, self.parameters, **others)
        for name, own in self.attributes.items():
            value = getattr(self, name)
            setattr(estimator, own, tuple(value) if isinstance(value, list) else value)
        found = dict(self)
        # scikit-learn's RidgeClassifier has a property of this name in some versions.
        is_read_only = isinstance(getattr(self.of, "classes_", None), property)
        if "classes" in found and not is_read_only:
            estimator.classes_ = found["classes"].read()
        self.restore_more(estimator, tensors)
        if found.get("feature_names") is not None:
            names = found["feature_names"]
            check_count("feature_names", len(names), estimator.n_features_in_)
            estimator.feature_names_in_ = np.array(names, dtype=object)
        if "output" in found and hasattr(estimator, "set_output"):
            estimator.set_output(transform=found["output"])
        return estimator

    def restore_more(self, estimator: Fitted, tensors: Arrays) -> None:
        """Check the values and tensors, and set the other attributes."""


class ArraysTable(EstimatorTable):
    """A fitted estimator of scikit-learn, whose attributes are arrays.

    ``dtypes`` maps the names of the estimator's tensors to their dtypes. Tensors in
    ``by_column`` are in column-major order in memory, because the order affects the
    rounding of products.
    """

    n_features: Size
    feature_names: FeatureNames
    output: Output
    dtypes: dict[str, Literal["float32", "float64"]]
    by_column: list[str]

    attributes: ClassVar[Mapping[str, str]] = {"n_features": "n_features_in_"}
    #: Attributes that are tensors, without the underscore at the end.
    learnt: ClassVar[tuple[str, ...]]
    #: Tensors that not every estimator has.
    optional: ClassVar[frozenset[str]] = frozenset()
    #: Tensors that are used as divisors, and must be above 0.
    above_zero: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def read_array(cls, estimator: Fitted, name: str) -> NDArray[Any] | None:
        """Read an attribute, or None if the estimator does not have it."""
        value: NDArray[Any] | None = getattr(estimator, f"{name}_", None)
        return value

    @classmethod
    def describe_more(cls, estimator: Fitted) -> Described:
        tensors = {}
        for name in cls.learnt:
            value = cls.read_array(estimator, name)
            if issparse(value):
                raise ValueError(
                    f"The {cls.of.__name__} to save must hold dense arrays: call "
                    "densify() first."
                )
            if value is not None:
                is_single = np.asarray(value).dtype == np.float32
                kind = np.float32 if is_single else np.float64
                tensors[name] = np.asarray(value, dtype=kind)
        by_column = [
            name
            for name, value in tensors.items()
            if value.ndim == 2 and not value.flags.c_contiguous
        ]
        dtypes = {name: value.dtype.name for name, value in tensors.items()}
        return {"dtypes": dtypes, "by_column": by_column}, tensors

    @abstractmethod
    def list_shapes(self) -> Shapes:
        """List the shapes of all possible tensors."""

    def expect_tensors(self) -> dict[str, Expected]:
        required, possible = set(self.learnt) - self.optional, set(self.learnt)
        if not required <= set(self.dtypes) <= possible:
            raise ValueError(
                f"its dtypes must name {sorted(required)}, and no others than "
                f"{sorted(possible)}. Got {sorted(self.dtypes)} instead"
            )
        if not set(self.by_column) <= set(self.dtypes):
            raise ValueError(f"its by_column must be among {sorted(self.dtypes)}")
        shapes = self.list_shapes()
        return {
            name: Expected(shapes[name], kind) for name, kind in self.dtypes.items()
        }

    def restore_more(self, estimator: Fitted, tensors: Arrays) -> None:
        for name in self.learnt:
            value = tensors.get(name)
            if name in self.above_zero and value is not None and not (value > 0).all():
                raise ValueError(f"its tensor {name!r} must be above 0")
            if name in self.by_column:
                value = np.asfortranarray(value)
            if value is not None or name in self.optional:
                setattr(estimator, f"{name}_", value)


def check_count(name: str, found: int, expected: int) -> None:
    if found != expected:
        raise ValueError(f"its {name} must be {expected} in all. Got {found} instead")


def check_positions(name: str, found: list[int], length: int) -> None:
    if len(set(found)) < len(found) or max(found) >= length:
        raise ValueError(f"its {name} must differ and be in [0, {length}): {found}")


def explain_validation(error: ValidationError) -> str:
    """Describe in one line where a JSON does not match its table."""
    wrong = [
        f"{'.'.join(map(str, at['loc']))}: {at['msg'].lower()}"
        for at in error.errors(include_url=False, include_context=False)
    ]
    others = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    return "; ".join(wrong[:3]) + others
