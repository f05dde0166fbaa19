"""Tables of scikit-learn's linear classifiers, and of functions that calibrate them."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from sklearn.base import BaseEstimator
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.preprocessing import LabelBinarizer

from plug_sklearn._sklearn import CALIBRATORS
from plug_sklearn.persistence._files import Arrays, Expected
from plug_sklearn.persistence._tables import (
    ArraysTable,
    Described,
    Fitted,
    Labels,
    Position,
    Shapes,
    Size,
    Table,
    check_count,
)

#: A number of directions or ratios, which may be none.
Count = Annotated[int, Field(ge=0, le=2**20)]


class LinearTable(ArraysTable):
    """A fitted linear classifier: weights and intercepts, with one or more outputs."""

    classes: Labels

    learnt: ClassVar[tuple[str, ...]] = ("coef", "intercept")

    @classmethod
    def read_array(cls, estimator: Fitted, name: str) -> NDArray[Any] | None:
        coef: NDArray[Any] = estimator.coef_
        if np.ndim(coef) == 1:
            # With one output, it may have one axis less.
            coef = np.atleast_2d(coef)
        if name == "coef":
            return coef
        if name == "intercept":
            # Without a fitted intercept, it may be the number 0.
            number = estimator.intercept_
            kind = getattr(number, "dtype", coef.dtype)
            return np.array(
                np.broadcast_to(np.ravel(number), coef.shape[0]), dtype=kind
            )
        return super().read_array(estimator, name)

    def list_shapes(self) -> Shapes:
        n_classes = len(self.classes.values)
        n_outputs = 1 if n_classes == 2 else n_classes
        return {"coef": (n_outputs, self.n_features), "intercept": (n_outputs,)}


class LogisticTable(LinearTable):
    """A fitted :class:`sklearn.linear_model.LogisticRegression`."""

    kind: Literal["LogisticRegression"]
    n_iter: list[Position]

    of: ClassVar[type[BaseEstimator]] = LogisticRegression

    @classmethod
    def describe_more(cls, estimator: Fitted) -> Described:
        values, tensors = super().describe_more(estimator)
        return values | {"n_iter": np.ravel(estimator.n_iter_)}, tensors

    def restore_more(self, estimator: Fitted, tensors: Arrays) -> None:
        super().restore_more(estimator, tensors)
        estimator.n_iter_ = np.array(self.n_iter, dtype=np.int32)


class RidgeTable(LinearTable):
    """A fitted :class:`sklearn.linear_model.RidgeClassifier`."""

    kind: Literal["RidgeClassifier"]
    solver: str | None
    is_flat: bool

    of: ClassVar[type[BaseEstimator]] = RidgeClassifier

    @classmethod
    def describe_more(cls, estimator: Fitted) -> Described:
        if np.ndim(estimator.classes_) != 1 or isinstance(estimator.classes_, list):
            raise ValueError(
                "The RidgeClassifier to save must have been fitted to one label "
                "for each sample."
            )
        values, tensors = super().describe_more(estimator)
        values["solver"] = getattr(estimator, "solver_", None)
        values["is_flat"] = np.ndim(estimator.coef_) == 1
        return values, tensors

    def restore_more(self, estimator: Fitted, tensors: Arrays) -> None:
        super().restore_more(estimator, tensors)
        estimator._label_binarizer = LabelBinarizer(pos_label=1, neg_label=-1)
        estimator._label_binarizer.fit(self.classes.read())
        if self.is_flat:
            estimator.coef_ = estimator.coef_[0]
            estimator.intercept_ = estimator.intercept_[0]
        estimator.n_iter_ = None
        estimator.solver_ = self.solver


class DiscriminantTable(LinearTable):
    """A fitted :class:`sklearn.discriminant_analysis.LinearDiscriminantAnalysis`.

    Its ``covariance_``, which no prediction needs, is left out.
    """

    kind: Literal["LinearDiscriminantAnalysis"]
    n_directions: Count
    n_ratios: Count
    n_out: Size

    of: ClassVar[type[BaseEstimator]] = LinearDiscriminantAnalysis
    attributes: ClassVar[Mapping[str, str]] = {
        **LinearTable.attributes,
        "n_out": "_max_components",
    }
    optional: ClassVar[frozenset[str]] = frozenset(
        {"xbar", "scalings", "explained_variance_ratio"}
    )
    learnt: ClassVar[tuple[str, ...]] = (
        *("coef", "intercept", "means", "priors"),
        *("xbar", "scalings", "explained_variance_ratio"),
    )

    @classmethod
    def describe_more(cls, estimator: Fitted) -> Described:
        values, tensors = super().describe_more(estimator)
        values["n_directions"] = tensors.get("scalings", np.empty((0, 0))).shape[1]
        values["n_ratios"] = len(tensors.get("explained_variance_ratio", ()))
        return values, tensors

    def list_shapes(self) -> Shapes:
        n_classes = len(self.classes.values)
        return {
            **super().list_shapes(),
            "means": (n_classes, self.n_features),
            "priors": (n_classes,),
            "xbar": (self.n_features,),
            "scalings": (self.n_features, self.n_directions),
            "explained_variance_ratio": (self.n_ratios,),
        }

    def restore_more(self, estimator: Fitted, tensors: Arrays) -> None:
        super().restore_more(estimator, tensors)
        for name in self.optional - set(self.dtypes):
            delattr(estimator, f"{name}_")
        estimator._n_features_out = self.n_out


class CalibratorTable(Table):
    """The function that maps a decision value of one class to its probability."""

    kind: Literal["isotonic", "sigmoid", "temperature"]
    dtype: Literal["float32", "float64"]
    #: Length of each tensor: the thresholds of an isotonic function, or 1.
    length: Size
    increasing: bool

    #: The tensors of each kind, without the underscore at the end of the attributes.
    learnt: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "isotonic": ("X_thresholds", "y_thresholds"),
        "sigmoid": ("a", "b"),
        "temperature": ("beta",),
    }

    @classmethod
    def describe(cls, calibrator: Fitted, kind: str) -> Described:
        """Return what to save of a calibrator."""
        tensors = {
            name: np.atleast_1d(getattr(calibrator, f"{name}_"))
            for name in cls.learnt[kind]
        }
        first = next(iter(tensors.values()))
        values = {
            "kind": kind,
            "increasing": bool(getattr(calibrator, "increasing_", True)),
            "dtype": first.dtype.name,
            "length": len(first),
        }
        return values, tensors

    def expect_tensors(self) -> dict[str, Expected]:
        """List the tensors of the calibrator."""
        return dict.fromkeys(
            self.learnt[self.kind], Expected((self.length,), self.dtype)
        )

    def restore(self, tensors: Arrays, device: str) -> Fitted:
        """Make the fitted calibrator."""
        if self.kind == "isotonic":
            X, y = tensors["X_thresholds"], tensors["y_thresholds"]
            if (np.diff(X) <= 0).any() or not ((y >= 0) & (y <= 1)).all():
                raise ValueError("its thresholds must increase, to values in [0, 1]")
            isotonic: Fitted = IsotonicRegression(out_of_bounds="clip")
            isotonic.X_thresholds_, isotonic.y_thresholds_ = X, y
            isotonic.X_min_, isotonic.X_max_ = X[0], X[-1]
            isotonic.increasing_ = self.increasing
            isotonic._build_f(X, y)
            return isotonic
        check_count("calibrator's values", self.length, 1)
        if self.kind not in CALIBRATORS:
            raise ValueError(
                f"its calibration by {self.kind} needs a newer scikit-learn"
            )
        calibrator = CALIBRATORS[self.kind]()
        for name, value in tensors.items():
            setattr(calibrator, f"{name}_", value[0])
        return calibrator
