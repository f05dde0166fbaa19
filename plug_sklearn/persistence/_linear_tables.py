"""Tables of scikit-learn's linear classifiers."""

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from sklearn.base import BaseEstimator
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.preprocessing import LabelBinarizer

from plug_sklearn.persistence._numbers_tables import NumbersTable, Shapes
from plug_sklearn.persistence._tables import Labels, Position, Size
from plug_sklearn.persistence._values import describe_labels, read_labels


class LinearTable(NumbersTable):
    """A fitted linear classifier: weights and intercepts, with one or more outputs."""

    classes: Labels

    learnt: ClassVar[tuple[str, ...]] = ("coef", "intercept")

    @classmethod
    def read_tensor(cls, estimator: Any, name: str) -> NDArray[Any] | None:  # noqa: ANN401 - of the class of
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
        return super().read_tensor(estimator, name)

    @classmethod
    def describe_more(cls, estimator: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
        return {"classes": describe_labels(estimator.classes_)}

    def list_shapes(self) -> Shapes:
        n_classes = len(self.classes.values)
        n_outputs = 1 if n_classes == 2 else n_classes
        return {"coef": (n_outputs, self.n_features), "intercept": (n_outputs,)}

    def restore_more(self, estimator: Any) -> None:  # noqa: ANN401 - as above
        estimator.classes_ = read_labels(self.classes.dtype, self.classes.values)


class LogisticTable(LinearTable):
    """A fitted :class:`sklearn.linear_model.LogisticRegression`."""

    kind: Literal["LogisticRegression"]
    n_iter: list[Position]

    of: ClassVar[type[BaseEstimator]] = LogisticRegression

    @classmethod
    def describe_more(cls, estimator: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
        n_iter = np.ravel(estimator.n_iter_).tolist()
        return {**super().describe_more(estimator), "n_iter": n_iter}

    def restore_more(self, estimator: Any) -> None:  # noqa: ANN401 - as above
        super().restore_more(estimator)
        estimator.n_iter_ = np.array(self.n_iter, dtype=np.int32)


class RidgeTable(LinearTable):
    """A fitted :class:`sklearn.linear_model.RidgeClassifier`."""

    kind: Literal["RidgeClassifier"]
    solver: str | None
    is_flat: bool

    of: ClassVar[type[BaseEstimator]] = RidgeClassifier

    @classmethod
    def describe_more(cls, estimator: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
        if np.ndim(estimator.classes_) != 1 or isinstance(estimator.classes_, list):
            raise ValueError(
                "The RidgeClassifier to save must have been fitted to one label a row."
            )
        solver = getattr(estimator, "solver_", None)
        return {
            **super().describe_more(estimator),
            "solver": solver,
            "is_flat": np.ndim(estimator.coef_) == 1,
        }

    def restore_more(self, estimator: Any) -> None:  # noqa: ANN401 - as above
        classes = read_labels(self.classes.dtype, self.classes.values)
        estimator._label_binarizer = LabelBinarizer(pos_label=1, neg_label=-1)
        estimator._label_binarizer.fit(classes)
        # In some versions, it is a property that reads the binarizer.
        if not isinstance(getattr(type(estimator), "classes_", None), property):
            estimator.classes_ = classes
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
    n_directions: Annotated[int, Field(ge=0, le=2**20)]
    n_ratios: Annotated[int, Field(ge=0, le=2**20)]
    n_out: Size

    of: ClassVar[type[BaseEstimator]] = LinearDiscriminantAnalysis
    learnt: ClassVar[tuple[str, ...]] = (
        "coef",
        "intercept",
        "means",
        "priors",
        "xbar",
        "scalings",
        "explained_variance_ratio",
    )
    optional: ClassVar[frozenset[str]] = frozenset(
        {"xbar", "scalings", "explained_variance_ratio"}
    )

    @classmethod
    def describe_more(cls, estimator: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
        scalings = getattr(estimator, "scalings_", None)
        ratios = getattr(estimator, "explained_variance_ratio_", ())
        return {
            **super().describe_more(estimator),
            "n_directions": 0 if scalings is None else scalings.shape[1],
            "n_ratios": len(ratios),
            "n_out": int(estimator._max_components),
        }

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

    def restore_more(self, estimator: Any) -> None:  # noqa: ANN401 - as above
        super().restore_more(estimator)
        for name in self.optional - set(self.dtypes):
            delattr(estimator, f"{name}_")
        estimator._max_components = self.n_out
        estimator._n_features_out = self.n_out
