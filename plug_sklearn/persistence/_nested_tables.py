"""Tables of estimators that contain others: pipelines, calibration, thresholds."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from sklearn.base import BaseEstimator, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from plug_sklearn._sklearn import CalibratedClassifier
from plug_sklearn.persistence._files import Arrays, Expected
from plug_sklearn.persistence._linear_tables import (
    CalibratorTable,
    DiscriminantTable,
    LogisticTable,
    RidgeTable,
)
from plug_sklearn.persistence._probe_tables import (
    CNNTable,
    MLPTable,
    StackTable,
    TokenTable,
)
from plug_sklearn.persistence._tables import (
    Described,
    EstimatorTable,
    Fitted,
    Labels,
    Table,
    check_count,
)
from plug_sklearn.persistence._transformer_tables import (
    AggregatorTable,
    EmbedderTable,
    MaxAbsTable,
    MinMaxTable,
    PCATable,
    RobustTable,
    ScalerTable,
)
from plug_sklearn.persistence._values import read_parameters


class HolderTable(Table):
    """A fitted estimator that contains others.

    The names of its tensors begin with the place of their estimator and a dot.
    """

    @abstractmethod
    def list_held(self) -> dict[str, Any]:
        """List the tables of what it contains, by place."""

    def expect_tensors(self) -> dict[str, Expected]:
        """List the tensors of all that it contains."""
        expected = [
            (f"{place}.{name}", tensor)
            for place, table in self.list_held().items()
            for name, tensor in table.expect_tensors().items()
        ]
        if len(dict(expected)) < len(expected):
            raise ValueError("its steps have tensors of the same names")
        return dict(expected)

    def restore_held(self, tensors: Arrays, device: str) -> dict[str, Any]:
        """Make all that it contains, by place."""
        held = {}
        for place, table in self.list_held().items():
            own = {name: tensors[f"{place}.{name}"] for name in table.expect_tensors()}
            held[place] = table.restore(own, device)
        return held


class PipelineTable(HolderTable):
    """A fitted :class:`sklearn.pipeline.Pipeline`."""

    kind: Literal["Pipeline"]
    steps: "list[Step]" = Field(min_length=1)

    of: ClassVar[type] = Pipeline

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

    def list_held(self) -> dict[str, Any]:
        return {step.name: step.estimator for step in self.steps}

    def restore(self, tensors: Arrays, device: str) -> BaseEstimator:
        """Make the fitted pipeline."""
        names = [step.name for step in self.steps]
        if len(set(names)) < len(names) or any("__" in name for name in names):
            raise ValueError(f"its steps' names must differ and have no '__': {names}")
        steps = list(self.restore_held(tensors, device).items())
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
    ) -> Fitted:
        """Combine a fitted classifier and its calibrators."""
        kinds = {calibrator.kind for calibrator in self.calibrators}
        if len(kinds) > 1:
            raise ValueError(f"its calibrators differ in kind: {sorted(kinds)}")
        (kind,) = kinds
        is_single = len(classes) == 2 or kind == "temperature"
        check_count("calibrators", len(calibrators), 1 if is_single else len(classes))
        found, expected = list_classes(inner), classes.tolist()
        # Temperature scaling fits its classifiers to the numbers of the classes.
        is_numbered = kind == "temperature" and found == list(range(len(classes)))
        if found != expected and not is_numbered:
            raise ValueError(f"its classifiers must have classes {expected}: {found}")
        held = FrozenEstimator(inner) if self.is_frozen else inner
        return CalibratedClassifier(held, calibrators, classes=classes, method=kind)


class CalibratedTable(HolderTable, EstimatorTable):
    """A fitted :class:`sklearn.calibration.CalibratedClassifierCV`."""

    kind: Literal["CalibratedClassifierCV"]
    classes: Labels
    members: list[CalibratedMember] = Field(min_length=1)

    of: ClassVar[type[BaseEstimator]] = CalibratedClassifierCV

    @classmethod
    def describe_more(cls, calibrated: Fitted) -> Described:
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
            own_values = {"estimator": values, "is_frozen": is_frozen}
            members.append({**own_values, "calibrators": calibrators})
        return {"members": members}, tensors

    def list_held(self) -> dict[str, Any]:
        held: dict[str, Any] = {}
        for number, member in enumerate(self.members):
            held[f"members.{number}.estimator"] = member.estimator
            for place, calibrator in enumerate(member.calibrators):
                held[f"members.{number}.calibrators.{place}"] = calibrator
        return held

    def restore(self, tensors: Arrays, device: str) -> BaseEstimator:
        """Make the fitted estimator."""
        classes = self.classes.read()
        made = self.restore_held(tensors, device)
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
        calibrated: Fitted = read_parameters(self.of, self.parameters, estimator=held)
        calibrated.calibrated_classifiers_ = members
        calibrated.classes_ = classes
        copy_features(first, calibrated)
        return calibrated


class ThresholdTable(HolderTable, EstimatorTable):
    """A fitted :class:`sklearn.model_selection.FixedThresholdClassifier`."""

    kind: Literal["FixedThresholdClassifier"]
    estimator: "AnyTable"
    is_frozen: bool

    of: ClassVar[type[BaseEstimator]] = FixedThresholdClassifier

    @classmethod
    def describe_more(cls, threshold: Fitted) -> Described:
        inner, is_frozen = thaw(threshold.estimator_)
        values, tensors = describe_estimator(inner)
        held = {"estimator": values, "is_frozen": is_frozen}
        return held, add_prefix("estimator", tensors)

    def list_held(self) -> dict[str, Any]:
        return {"estimator": self.estimator}

    def restore(self, tensors: Arrays, device: str) -> BaseEstimator:
        """Make the fitted estimator."""
        inner = self.restore_held(tensors, device)["estimator"]
        classes = list_classes(inner)
        check_count("classes", len(classes), 2)
        fitted = FrozenEstimator(inner) if self.is_frozen else inner
        held = fitted if self.is_frozen else clone(inner)
        threshold: Fitted = read_parameters(self.of, self.parameters, estimator=held)
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
TABLES: dict[type, Any] = {table.of: table for table in get_args(get_args(AnyTable)[0])}


def describe_estimator(estimator: BaseEstimator) -> Described:
    """Return a fitted estimator as plain values and tensors."""
    kind = type(estimator)
    if kind not in TABLES:
        names = sorted(known.__name__ for known in TABLES)
        hint = "To save it as a pickle, use joblib.dump"
        if hasattr(estimator, "best_estimator_"):
            hint = "Save its best_estimator_"
        elif kind.__name__ == "BestLayerClassifier":
            hint = "Save its estimator_, put in its place"
        raise ValueError(
            f"The 'estimator' given to save_artifacts must be one of {names}, or hold "
            f"only these. Got {estimator!r} instead. {hint}."
        )
    if kind is not Pipeline:
        # The steps of a pipeline are checked one by one.
        check_is_fitted(estimator)
    described: Described = TABLES[kind].describe(estimator)
    return described


def thaw(estimator: Fitted) -> tuple[Any, bool]:
    """Return the estimator in a frozen estimator, and whether it was frozen."""
    is_frozen = isinstance(estimator, FrozenEstimator)
    return (estimator.estimator if is_frozen else estimator), is_frozen


def add_prefix(place: str, tensors: Arrays) -> Arrays:
    """Put a place and a dot before the names of tensors."""
    return {f"{place}.{name}": value for name, value in tensors.items()}


def list_classes(estimator: Fitted) -> list[Any]:
    """List the classes of an estimator; none if it is no classifier."""
    found: list[Any] = np.asarray(getattr(estimator, "classes_", [])).tolist()
    return found


def copy_features(inner: Fitted, outer: Fitted) -> None:
    """Copy the number and names of features from one estimator to another."""
    for name in ("n_features_in_", "feature_names_in_"):
        if hasattr(inner, name):
            setattr(outer, name, getattr(inner, name))
