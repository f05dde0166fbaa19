"""The private helpers of scikit-learn that the package uses, all in one place.

A release of scikit-learn may move them; then this file is all that changes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sklearn import calibration
from sklearn.calibration import _CalibratedClassifier as CalibratedClassifier
from sklearn.model_selection._search import BaseSearchCV
from sklearn.utils import _safe_indexing as take_rows
from sklearn.utils._param_validation import (
    Interval,
    StrOptions,
    validate_parameter_constraints,
)

#: What calibrates decision values, by its method. Older releases lack the temperature.
CALIBRATORS: dict[str, Any] = {
    method: getattr(calibration, name)
    for method, name in (
        ("sigmoid", "_SigmoidCalibration"),
        ("temperature", "_TemperatureScaling"),
    )
    if hasattr(calibration, name)
}

__all__ = [
    "CALIBRATORS",
    "BaseSearchCV",
    "CalibratedClassifier",
    "Interval",
    "StrOptions",
    "explaining_texts",
    "take_rows",
    "validate_parameter_constraints",
]


@contextmanager
def explaining_texts(owner: str) -> Iterator[None]:
    """Say what to do with texts, where scikit-learn's check expects numbers."""
    try:
        yield
    except ValueError as error:
        if not str(error).startswith("could not convert string to float"):
            raise
        raise ValueError(
            f"X given to {owner} must hold numbers. Got texts instead: put an "
            "HFEmbeddingTransformer before it, in a pipeline."
        ) from None
