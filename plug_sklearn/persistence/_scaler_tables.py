"""Tables of scikit-learn's scalers, and of principal components."""

from collections.abc import Mapping
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
from plug_sklearn.persistence._tables import (
    ArraysTable,
    EstimatorTable,
    FeatureNames,
    Fitted,
    Output,
    Shapes,
    Size,
)


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
    def read_tensors(cls, scaler: Fitted) -> Arrays:
        learnt = {name: getattr(scaler, f"{name}_") for name in cls.learnt}
        return {
            name: np.asarray(value, dtype=np.float64)
            for name, value in learnt.items()
            if value is not None
        }

    @classmethod
    def describe_more(cls, scaler: Fitted, tensors: Arrays) -> dict[str, Any]:
        if np.ndim(scaler.n_samples_seen_):
            raise ValueError(
                "The StandardScaler to save must have been fitted on data without "
                "missing values."
            )
        return {"n_samples_seen": int(scaler.n_samples_seen_)}

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
    def describe_more(cls, estimator: Fitted, tensors: Arrays) -> dict[str, Any]:
        noise = float(estimator.noise_variance_)
        return {
            **super().describe_more(estimator, tensors),
            # Undefined where all components are kept, in some versions.
            "noise_variance": max(noise, 0.0) if isfinite(noise) else 0.0,
        }

    def list_shapes(self) -> Shapes:
        shapes: Shapes = dict.fromkeys(self.learnt, (self.n_components,))
        shapes["components"] = self.n_components, self.n_features
        shapes["mean"] = (self.n_features,)
        return shapes

    def restore_more(self, estimator: Fitted, tensors: Arrays) -> None:
        super().restore_more(estimator, tensors)
        if (estimator.explained_variance_ < 0).any():
            raise ValueError("its tensor 'explained_variance' must be 0 or more")
