"""The private helpers of scikit-learn that the package uses, all in one place.

A release of scikit-learn may move them; then this file is all that changes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sklearn import calibration
from sklearn.calibration import _CalibratedClassifier as CalibratedClassifier
from sklearn.utils import _safe_indexing as take_rows
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    StrOptions,
    validate_parameter_constraints,
)
from sklearn.utils._set_output import _get_output_config as get_output_config
from sklearn.utils.validation import _check_feature_names_in as check_feature_names_in
from sklearn.utils.validation import _check_n_features as check_n_features
from sklearn.utils.validation import _check_sample_weight as check_sample_weight
from sklearn.utils.validation import _check_y as check_y

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
    "CalibratedClassifier",
    "HasMethods",
    "Interval",
    "StrOptions",
    "check_feature_names_in",
    "check_n_features",
    "check_sample_weight",
    "check_y",
    "explaining_texts",
    "get_output_config",
    "is_search",
    "take_rows",
    "validate_parameter_constraints",
]


@contextmanager
def explaining_texts(owner: str) -> Iterator[None]:
    """Explain what to do with texts, where scikit-learn's check expects numbers."""
    try:
        yield
    except ValueError as error:
        if not str(error).startswith("could not convert string to float"):
            raise
        raise ValueError(
            f"X given to {owner} must hold numbers. Got texts instead: put an "
            "HFEmbeddingTransformer before it, in a pipeline."
        ) from None


def is_search(estimator: object) -> bool:
    """Return whether an estimator is a search over parameters, such as GridSearchCV."""
    # Importing it takes a tenth of a second, and few modules need it.
    from sklearn.model_selection._search import BaseSearchCV

    return isinstance(estimator, BaseSearchCV)
