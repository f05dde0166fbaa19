"""Functions for the tables of estimators that contain other estimators."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.frozen import FrozenEstimator

from plug_sklearn.persistence._files import Arrays, Expected


def thaw(estimator: Any) -> tuple[Any, bool]:  # noqa: ANN401 - of any kind
    """Return the estimator in a frozen estimator, and whether it was frozen."""
    is_frozen = isinstance(estimator, FrozenEstimator)
    return (estimator.estimator if is_frozen else estimator), is_frozen


def add_prefix(name: str, tensors: Arrays) -> Arrays:
    """Put a prefix and a dot before the names of tensors."""
    return {f"{name}.{key}": value for key, value in tensors.items()}


def expect_all(tables: Mapping[str, Any]) -> dict[str, Expected]:
    """List the tensors of several tables, by the prefix of their names."""
    expected = [
        (f"{prefix}.{name}", tensor)
        for prefix, table in tables.items()
        for name, tensor in table.expect_tensors().items()
    ]
    if len(dict(expected)) < len(expected):
        raise ValueError("its steps have tensors of the same names")
    return dict(expected)


def restore_one(prefix: str, table: Any, tensors: Arrays, device: str) -> Any:  # noqa: ANN401 - a table, and what it is of
    """Make the estimator of a table whose tensors have a prefix."""
    own = {name: tensors[f"{prefix}.{name}"] for name in table.expect_tensors()}
    return table.restore(own, device)


def require_classes(
    estimator: Any,  # noqa: ANN401 - of any kind
    classes: Sequence[Any],
    *,
    may_be_numbered: bool,
) -> None:
    """Raise a ValueError unless a classifier has these classes, or their numbers."""
    found = np.asarray(getattr(estimator, "classes_", [])).tolist()
    numbers = list(range(len(classes)))
    if found != list(classes) and not (may_be_numbered and found == numbers):
        raise ValueError(f"its classifiers must have classes {list(classes)}: {found}")


def copy_features(inner: Any, outer: Any) -> None:  # noqa: ANN401 - of any kind
    """Copy the number and names of features from one estimator to another."""
    for name in ("n_features_in_", "feature_names_in_"):
        if hasattr(inner, name):
            setattr(outer, name, getattr(inner, name))
