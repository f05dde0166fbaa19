"""The base of tables of estimators that consist of a few arrays."""

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator

from plug_sklearn.persistence._files import Arrays, Expected
from plug_sklearn.persistence._tables import (
    Described,
    Output,
    Parameters,
    Size,
    Table,
    list_feature_names,
    read_output,
    set_features,
)
from plug_sklearn.persistence._values import read_parameters

Shapes = dict[str, tuple[int, ...]]


class NumbersTable(Table):
    """A fitted estimator of scikit-learn, whose attributes are arrays.

    ``dtypes`` maps the names of the estimator's tensors to their dtypes. Tensors in
    ``by_column`` are in column-major order in memory, because the order affects the
    rounding of products.
    """

    parameters: Parameters
    n_features: Size
    feature_names: list[str] | None
    output: Output | None
    dtypes: dict[str, Literal["float32", "float64"]]
    by_column: list[str]

    #: The class of the estimators.
    of: ClassVar[type[BaseEstimator]]
    #: Attributes that are tensors, without the underscore at the end.
    learnt: ClassVar[tuple[str, ...]]
    #: Tensors that not every estimator has.
    optional: ClassVar[frozenset[str]] = frozenset()
    #: Tensors that are used as divisors, and must be above 0.
    above_zero: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def describe(cls, estimator: Any) -> Described:  # noqa: ANN401 - of the class of
        """Return what to save of a fitted estimator, besides its parameters."""
        tensors = {}
        for name in cls.learnt:
            value = cls.read_tensor(estimator, name)
            if issparse(value):
                raise ValueError(
                    f"The {cls.of.__name__} to save must hold dense arrays: call "
                    "densify() first."
                )
            if value is not None:
                is_single = np.asarray(value).dtype == np.float32
                tensors[name] = np.asarray(
                    value, dtype=np.float32 if is_single else np.float64
                )
        values = {
            "n_features": estimator.n_features_in_,
            "feature_names": list_feature_names(estimator),
            "output": read_output(estimator),
            "dtypes": {name: value.dtype.name for name, value in tensors.items()},
            "by_column": [
                name
                for name, value in tensors.items()
                if value.ndim == 2 and not value.flags.c_contiguous
            ],
            **cls.describe_more(estimator),
        }
        return values, tensors

    @classmethod
    def read_tensor(cls, estimator: Any, name: str) -> NDArray[Any] | None:  # noqa: ANN401 - as above
        """Read an attribute, or None if the estimator does not have it."""
        value: NDArray[Any] | None = getattr(estimator, f"{name}_", None)
        return value

    @classmethod
    def describe_more(cls, estimator: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
        """Return the values of the fields that the base does not have."""
        return {}

    @abstractmethod
    def list_shapes(self) -> Shapes:
        """List the shapes of all possible tensors."""

    def restore_more(self, estimator: Any) -> None:  # noqa: ANN401 - as above
        """Set the attributes that are not tensors."""

    def expect_tensors(self) -> dict[str, Expected]:
        """List the tensors of the estimator."""
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

    def restore(self, tensors: Arrays, device: str) -> BaseEstimator:
        """Make the fitted estimator."""
        estimator: Any = read_parameters(self.of, self.parameters)
        for name in self.learnt:
            value = tensors.get(name)
            if name in self.above_zero and value is not None and not (value > 0).all():
                raise ValueError(f"its tensor {name!r} must be above 0")
            if name in self.by_column:
                value = np.asfortranarray(value)
            if value is not None or name in self.optional:
                setattr(estimator, f"{name}_", value)
        set_features(estimator, self.n_features, self.feature_names)
        self.restore_more(estimator)
        if hasattr(estimator, "set_output"):
            estimator.set_output(transform=self.output)
        return estimator
