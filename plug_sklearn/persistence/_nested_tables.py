"""Tables of estimators that contain others: pipelines, calibration and thresholds."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from sklearn.base import BaseEstimator, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

import plug_sklearn
from plug_sklearn._sklearn import CalibratedClassifier
from plug_sklearn.persistence._calibrators import CalibratorTable
from plug_sklearn.persistence._embedding_tables import AggregatorTable, EmbedderTable
from plug_sklearn.persistence._files import Arrays, Expected
from plug_sklearn.persistence._holding import (
    add_prefix,
    copy_features,
    expect_all,
    require_classes,
    restore_one,
    thaw,
)
from plug_sklearn.persistence._linear_tables import (
    DiscriminantTable,
    LogisticTable,
    RidgeTable,
)
from plug_sklearn.persistence._scaler_tables import (
    MaxAbsTable,
    MinMaxTable,
    PCATable,
    RobustTable,
    ScalerTable,
)
from plug_sklearn.persistence._stack_table import StackTable
from plug_sklearn.persistence._tables import (
    CNNTable,
    Described,
    Labels,
    MLPTable,
    Parameters,
    Table,
    TokenTable,
    check_count,
)
from plug_sklearn.persistence._values import (
    describe_labels,
    describe_parameters,
    read_labels,
    read_parameters,
    to_plain,
)


class PipelineTable(Table):
    """A fitted :class:`sklearn.pipeline.Pipeline`.

    The names of its tensors begin with the name of the step and a dot.
    """

    kind: Literal["Pipeline"]
    steps: "list[Step]" = Field(min_length=1)

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
            values, own = describe_estimator(step)
            steps.append({"name": name, "estimator": values})
            tensors |= add_prefix(name, own)
        return {"kind": "Pipeline", "steps": steps}, tensors

    def expect_tensors(self) -> dict[str, Expected]:
        """List the tensors of all steps."""
        return expect_all({step.name: step.estimator for step in self.steps})

    def restore(self, tensors: Arrays, device: str) -> BaseEstimator:
        """Make the fitted pipeline."""
        names = [step.name for step in self.steps]
        if len(set(names)) < len(names) or any("__" in name for name in names):
            raise ValueError(f"its steps' names must differ and have no '__': {names}")
        steps = [
            (step.name, restore_one(step.name, step.estimator, tensors, device))
            for step in self.steps
        ]
        for name, estimator in steps[:-1]:
            if not hasattr(estimator, "transform"):
                raise ValueError(
                    f"its step {name!r} must be the last: it has no transform"
                )
        return Pipeline(steps)


class CalibratedMember(Table):
    """One of the classifiers that a calibrated classifier averages."""

    estimator: "AnyTable"
    is_frozen: bool
    calibrators: list[CalibratorTable] = Field(min_length=1)

    def join(
        self,
        inner: BaseEstimator,
        calibrators: Sequence[Any],
        classes: NDArray[Any],
    ) -> Any:  # noqa: ANN401 - scikit-learn's own
        """Combine a fitted classifier and its calibrators."""
        kinds = {calibrator.kind for calibrator in self.calibrators}
        if len(kinds) > 1:
            raise ValueError(f"its calibrators differ in kind: {sorted(kinds)}")
        (kind,) = kinds
        is_single = len(classes) == 2 or kind == "temperature"
        n_expected = 1 if is_single else len(classes)
        check_count("calibrators", len(calibrators), n_expected)
        require_classes(inner, classes.tolist(), may_be_numbered=kind == "temperature")
        held = FrozenEstimator(inner) if self.is_frozen else inner
        return CalibratedClassifier(held, calibrators, classes=classes, method=kind)


class CalibratedTable(Table):
    """A fitted :class:`sklearn.calibration.CalibratedClassifierCV`."""

    kind: Literal["CalibratedClassifierCV"]
    parameters: Parameters
    classes: Labels
    members: list[CalibratedMember] = Field(min_length=1)

    @staticmethod
    def describe(calibrated: Any) -> Described:  # noqa: ANN401 - of the class named by kind
        """Return what to save of a fitted estimator."""
        members: list[dict[str, Any]] = []
        tensors: Arrays = {}
        for number, member in enumerate(calibrated.calibrated_classifiers_):
            inner, is_frozen = thaw(member.estimator)
            values, own = describe_estimator(inner)
            tensors |= add_prefix(f"members.{number}.estimator", own)
            calibrators = []
            for place, calibrator in enumerate(member.calibrators):
                described, own = CalibratorTable.describe(calibrator, member.method)
                tensors |= add_prefix(f"members.{number}.calibrators.{place}", own)
                calibrators.append(described)
            members.append(
                {
                    "estimator": values,
                    "is_frozen": is_frozen,
                    "calibrators": calibrators,
                }
            )
        values = {
            "kind": "CalibratedClassifierCV",
            "parameters": describe_parameters(calibrated),
            "classes": describe_labels(calibrated.classes_),
            "members": members,
        }
        return to_plain(values), tensors

    def _list_parts(self) -> dict[str, Any]:
        """List the tables that hold tensors, by the prefix of their names."""
        parts: dict[str, Any] = {}
        for number, member in enumerate(self.members):
            parts[f"members.{number}.estimator"] = member.estimator
            for place, calibrator in enumerate(member.calibrators):
                parts[f"members.{number}.calibrators.{place}"] = calibrator
        return parts

    def expect_tensors(self) -> dict[str, Expected]:
        """List the tensors of all members."""
        return expect_all(self._list_parts())

    def restore(self, tensors: Arrays, device: str) -> BaseEstimator:
        """Make the fitted estimator."""
        classes = read_labels(self.classes.dtype, self.classes.values)
        made = {
            name: restore_one(name, table, tensors, device)
            for name, table in self._list_parts().items()
        }
        members = []
        for number, member in enumerate(self.members):
            calibrators = [
                made[f"members.{number}.calibrators.{place}"]
                for place in range(len(member.calibrators))
            ]
            inner = made[f"members.{number}.estimator"]
            members.append(member.join(inner, calibrators, classes))
        first = members[0].estimator
        held = first if self.members[0].is_frozen else clone(first)
        calibrated: Any = read_parameters(
            CalibratedClassifierCV, self.parameters, estimator=held
        )
        calibrated.calibrated_classifiers_ = members
        calibrated.classes_ = classes
        copy_features(first, calibrated)
        return calibrated


class ThresholdTable(Table):
    """A fitted :class:`sklearn.model_selection.FixedThresholdClassifier`."""

    kind: Literal["FixedThresholdClassifier"]
    parameters: Parameters
    estimator: "AnyTable"
    is_frozen: bool

    @staticmethod
    def describe(threshold: Any) -> Described:  # noqa: ANN401 - of the class named by kind
        """Return what to save of a fitted estimator."""
        inner, is_frozen = thaw(threshold.estimator_)
        values, tensors = describe_estimator(inner)
        described = {
            "kind": "FixedThresholdClassifier",
            "parameters": describe_parameters(threshold),
            "estimator": values,
            "is_frozen": is_frozen,
        }
        return to_plain(described), add_prefix("estimator", tensors)

    def expect_tensors(self) -> dict[str, Expected]:
        """List the tensors of the estimator inside."""
        return expect_all({"estimator": self.estimator})

    def restore(self, tensors: Arrays, device: str) -> BaseEstimator:
        """Make the fitted estimator."""
        inner = restore_one("estimator", self.estimator, tensors, device)
        classes = np.asarray(getattr(inner, "classes_", [])).tolist()
        check_count("classes", len(classes), 2)
        fitted = FrozenEstimator(inner) if self.is_frozen else inner
        held = fitted if self.is_frozen else clone(inner)
        threshold: Any = read_parameters(
            FixedThresholdClassifier, self.parameters, estimator=held
        )
        if threshold.pos_label is not None and threshold.pos_label not in classes:
            raise ValueError(f"its pos_label must be among {classes}")
        threshold.estimator_ = fitted
        copy_features(inner, threshold)
        return threshold


AnyTable = Annotated[
    AggregatorTable
    | CNNTable
    | CalibratedTable
    | DiscriminantTable
    | EmbedderTable
    | LogisticTable
    | MLPTable
    | StackTable
    | MaxAbsTable
    | MinMaxTable
    | PCATable
    | PipelineTable
    | RidgeTable
    | RobustTable
    | ScalerTable
    | ThresholdTable
    | TokenTable,
    Field(discriminator="kind"),
]


class Step(Table):
    """A step of a pipeline."""

    name: Annotated[str, Field(min_length=1)]
    estimator: AnyTable


for _table in (PipelineTable, CalibratedMember, CalibratedTable, ThresholdTable):
    _table.model_rebuild()

#: The table of each class.
TABLES: dict[type, Any] = {
    plug_sklearn.HFEmbeddingTransformer: EmbedderTable,
    plug_sklearn.LayerAggregator: AggregatorTable,
    plug_sklearn.PlugCNNClassifier: CNNTable,
    plug_sklearn.PlugMLPClassifier: MLPTable,
    plug_sklearn.PlugStackClassifier: StackTable,
    plug_sklearn.PlugTokenClassifier: TokenTable,
    StandardScaler: ScalerTable,
    **{
        table.of: table
        for table in (
            DiscriminantTable,
            LogisticTable,
            MaxAbsTable,
            MinMaxTable,
            PCATable,
            RidgeTable,
            RobustTable,
        )
    },
}
#: Tables of estimators that contain others.
NESTED: dict[type, Any] = {
    CalibratedClassifierCV: CalibratedTable,
    FixedThresholdClassifier: ThresholdTable,
    Pipeline: PipelineTable,
}


def describe_estimator(estimator: BaseEstimator) -> Described:
    """Return a fitted estimator as plain values and tensors.

    Raises a ValueError if there is no table for its class, or for the class of an
    estimator inside it; or if a value is not plain.
    """
    kind = type(estimator)
    if kind not in TABLES and kind not in NESTED:
        names = sorted(known.__name__ for known in (*TABLES, *NESTED))
        hint = "To save it as a pickle, use joblib.dump"
        if hasattr(estimator, "best_estimator_"):
            hint = "Save its best_estimator_"
        elif kind.__name__ == "BestLayerClassifier":
            hint = "Save its estimator_, put in its place"
        raise ValueError(
            f"The 'estimator' given to save_artifacts must be one of {names}, or hold "
            f"only these. Got {estimator!r} instead. {hint}."
        )
    if kind in NESTED:
        if kind is not Pipeline:
            check_is_fitted(estimator)
        described: Described = NESTED[kind].describe(estimator)
        return described
    check_is_fitted(estimator)
    values, tensors = TABLES[kind].describe(estimator)
    parameters = describe_parameters(estimator)
    # Fitted attributes may be numpy scalars, like the parameters they come from.
    plain = {"kind": kind.__name__, "parameters": parameters, **to_plain(values)}
    return plain, tensors
