"""The private helpers of scikit-learn that the package uses, all in one place.

A release of scikit-learn may move them; then this file is all that changes.
"""

from sklearn.model_selection._search import BaseSearchCV
from sklearn.utils import _safe_indexing as take_rows
from sklearn.utils._param_validation import (
    Interval,
    StrOptions,
    validate_parameter_constraints,
)

__all__ = [
    "BaseSearchCV",
    "Interval",
    "StrOptions",
    "take_rows",
    "validate_parameter_constraints",
]
