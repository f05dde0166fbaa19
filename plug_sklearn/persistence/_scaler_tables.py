"""Tables of scikit-learn's scalers, and of principal components."""

from math import isfinite
from typing import Any, ClassVar, Literal

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

from plug_sklearn.persistence._files import Arrays, Expected
from plug_sklearn.persistence._numbers_tables import NumbersTable, Shapes
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
            "feature_names": list_feature_names(scaler),
            "output": read_output(scaler),
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
        set_features(scaler, self.n_features, self.feature_names)
        return scaler.set_output(transform=self.output)


class _VectorsTable(NumbersTable):
    """A scaler whose tensors have a number for each feature."""

    def list_shapes(self) -> Shapes:
        return dict.fromkeys(self.learnt, (self.n_features,))


class MinMaxTable(_VectorsTable):
    """A fitted :class:`sklearn.preprocessing.MinMaxScaler`."""

    kind: Literal["MinMaxScaler"]
    n_samples_seen: Size

    of: ClassVar[type[BaseEstimator]] = MinMaxScaler
    learnt: ClassVar[tuple[str, ...]] = (
        "scale",
        "min",
        "data_min",
        "data_max",
        "data_range",
    )
    above_zero: ClassVar[frozenset[str]] = frozenset({"scale"})

    @classmethod
    def describe_more(cls, estimator: Any) -> dict[str, Any]:  # noqa: ANN401 - of the class of
        return {"n_samples_seen": int(estimator.n_samples_seen_)}

    def restore_more(self, estimator: Any) -> None:  # noqa: ANN401 - as above
        estimator.n_samples_seen_ = self.n_samples_seen


class MaxAbsTable(MinMaxTable):
    """A fitted :class:`sklearn.preprocessing.MaxAbsScaler`."""

    kind: Literal["MaxAbsScaler"]  # type: ignore[assignment]  # another class of the same values

    of: ClassVar[type[BaseEstimator]] = MaxAbsScaler
    learnt: ClassVar[tuple[str, ...]] = ("scale", "max_abs")


class RobustTable(_VectorsTable):
    """A fitted :class:`sklearn.preprocessing.RobustScaler`."""

    kind: Literal["RobustScaler"]

    of: ClassVar[type[BaseEstimator]] = RobustScaler
    learnt: ClassVar[tuple[str, ...]] = ("center", "scale")
    optional: ClassVar[frozenset[str]] = frozenset({"center", "scale"})
    above_zero: ClassVar[frozenset[str]] = frozenset({"scale"})

    def restore_more(self, estimator: Any) -> None:  # noqa: ANN401 - as above
        for name, wanted in (
            ("center", estimator.with_centering),
            ("scale", estimator.with_scaling),
        ):
            if wanted != (name in self.dtypes):
                raise ValueError(
                    f"its dtypes must {'' if wanted else 'not '}name {name}"
                )


class PCATable(NumbersTable):
    """A fitted :class:`sklearn.decomposition.PCA`."""

    kind: Literal["PCA"]
    n_components: Size
    n_samples: Size
    noise_variance: float = Field(ge=0)

    of: ClassVar[type[BaseEstimator]] = PCA
    learnt: ClassVar[tuple[str, ...]] = (
        "components",
        "mean",
        "explained_variance",
        "explained_variance_ratio",
        "singular_values",
    )

    @classmethod
    def describe_more(cls, estimator: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
        noise = float(estimator.noise_variance_)
        return {
            "n_components": int(estimator.n_components_),
            "n_samples": int(estimator.n_samples_),
            # Undefined where all components are kept, in some versions.
            "noise_variance": max(noise, 0.0) if isfinite(noise) else 0.0,
        }

    def list_shapes(self) -> Shapes:
        shapes: Shapes = dict.fromkeys(self.learnt, (self.n_components,))
        shapes["components"] = self.n_components, self.n_features
        shapes["mean"] = (self.n_features,)
        return shapes

    def restore_more(self, estimator: Any) -> None:  # noqa: ANN401 - as above
        if (estimator.explained_variance_ < 0).any():
            raise ValueError("its tensor 'explained_variance' must be 0 or more")
        estimator.n_components_ = self.n_components
        estimator.n_samples_ = self.n_samples
        estimator.noise_variance_ = self.noise_variance
