"""The private helpers of scikit-learn that the package uses, all in one place.

A release of scikit-learn may move them; then this file is all that changes.
"""

from sklearn.utils import _safe_indexing as take_rows
from sklearn.utils._param_validation import (
    Interval,
    StrOptions,
    validate_parameter_constraints,
)
from sklearn.utils._set_output import _get_output_config as get_output_config
from sklearn.utils.validation import _check_feature_names_in as check_feature_names_in
from sklearn.utils.validation import _check_n_features as check_n_features
from sklearn.utils.validation import _check_sample_weight as check_sample_weight

__all__ = [
    "Interval",
    "StrOptions",
    "check_feature_names_in",
    "check_n_features",
    "check_sample_weight",
    "get_output_config",
    "is_search",
    "take_rows",
    "validate_parameter_constraints",
]


def is_search(estimator: object) -> bool:
    """Tell whether an estimator is a search over parameters, such as GridSearchCV."""
    # Importing it takes a tenth of a second, and few modules need it.
    from sklearn.model_selection._search import BaseSearchCV

    return isinstance(estimator, BaseSearchCV)
