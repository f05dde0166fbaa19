"""Which arguments of an estimator's ``fit`` take the groups of the rows."""

import sys
from inspect import signature
from typing import Any

from sklearn.model_selection._search import BaseSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import has_fit_parameter


def name_group_arguments(estimator: Any) -> list[str]:  # noqa: ANN401 - estimators of any kind
    """Name the arguments of ``fit`` that take groups, without metadata routing.

    Parameters
    ----------
    estimator : estimator
        One whose ``fit`` has the argument ``groups``; a search, such as
        ``GridSearchCV``, or ``RFECV``, whose own splitter uses groups; or a pipeline of
        such steps.
        Steps after a resampler of imbalanced-learn get no groups, since the resampler
        changes the rows.

    Returns
    -------
    list of str
        Such as ``["groups"]``, or ``["gridsearchcv__groups"]`` of a pipeline.
    """
    if isinstance(estimator, Pipeline):
        names = []
        for step, part in estimator.steps:
            names += [f"{step}__{name}" for name in name_group_arguments(part)]
            if hasattr(part, "fit_resample"):
                break
        return names
    is_search = isinstance(estimator, BaseSearchCV)
    if is_search or _is_rfecv(estimator):
        own = ["groups"] if _uses_groups(estimator.cv) else []
        if not is_search:
            return own
        # A search passes "groups" to its splitter, and other names to its estimator.
        inner = name_group_arguments(estimator.estimator)
        return own + [name for name in inner if name != "groups"]
    takes_groups = hasattr(estimator, "fit") and has_fit_parameter(estimator, "groups")
    return ["groups"] if takes_groups else []


def _is_rfecv(estimator: Any) -> bool:  # noqa: ANN401 - as above
    # Whoever passes an RFECV has imported its module; others need not.
    module = sys.modules.get("sklearn.feature_selection")
    return module is not None and isinstance(estimator, module.RFECV)


def _uses_groups(cv: Any) -> bool:  # noqa: ANN401 - as scikit-learn's functions take it
    """Tell whether a splitter uses groups; scikit-learn's others warn of them."""
    if hasattr(cv, "get_metadata_routing"):
        return cv.get_metadata_routing().split.requests.get("groups") is True
    return hasattr(cv, "split") and "groups" in signature(cv.split).parameters
