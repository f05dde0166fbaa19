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
from sklearn.utils._set_output import _get_output_config as get_output_config
from sklearn.utils.validation import (
    _check_feature_names_in as check_feature_names_in,
)

__all__ = [
    "BaseSearchCV",
    "Interval",
    "StrOptions",
    "check_feature_names_in",
    "get_output_config",
    "take_rows",
    "validate_parameter_constraints",
]
