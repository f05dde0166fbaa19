"""Thresholds that flag few negative rows, and the recall at these thresholds."""

from collections.abc import Callable
from math import ceil, log, log1p
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import make_scorer, roc_curve
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.utils import column_or_1d
from sklearn.utils.validation import check_is_fitted

from plug_sklearn._warnings import warn_user
from plug_sklearn.evaluation._folds import shorten_error
from plug_sklearn.evaluation._inputs import check_estimator, check_rows, describe


def recall_at_fpr(fpr: float, *, pos_label: object = None) -> Callable[..., float]:
    """Make a scorer of the recall at a false-positive rate.

    Parameters
    ----------
    fpr : float
        The highest false-positive rate, between 0 and 1. It is the share of negative
        samples that are flagged.
    pos_label : object, default=None
        The label of the positive class; None: the second of the two sorted labels.

    Returns
    -------
    callable
        A scorer ``(estimator, X, y)`` for any ``scoring`` parameter. It returns the
        highest recall among the thresholds whose false-positive rate on these samples
        is at most ``fpr``, or NaN if ``y`` holds a single class. The estimator must be
        a classifier of two classes with ``decision_function`` or ``predict_proba``.

    Raises
    ------
    ValueError
        If ``fpr`` is not between 0 and 1.

    See Also
    --------
    threshold_at_fpr : Chooses a threshold that limits the rate on new samples.

    Examples
    --------
    >>> import numpy as np
    >>> from plug_sklearn import recall_at_fpr
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import cross_val_score
    >>> y = np.arange(400) % 2
    >>> X = np.random.default_rng(0).normal(size=(400, 4)) + 2 * y[:, None]
    >>> scorer = recall_at_fpr(0.01)
    >>> scores = cross_val_score(LogisticRegression(), X, y, scoring=scorer)
    >>> round(float(scores.mean()), 2)
    0.91
    """
    _check_share("fpr", fpr, "recall_at_fpr")
    scorer: Callable[..., float] = make_scorer(
        _measure_recall,
        response_method=("decision_function", "predict_proba"),
        fpr=float(fpr),
        **({} if pos_label is None else {"pos_label": pos_label}),
    )
    return scorer


def _measure_recall(
    y_true: NDArray[Any],
    y_score: NDArray[np.floating],
    *,
    fpr: float,
    pos_label: object = None,
) -> float:
    labels = np.unique(y_true)
    if len(labels) > 2 or np.ndim(y_score) > 1:
        raise ValueError(
            "recall_at_fpr is for classifiers of two classes. Got labels "
            f"{labels.tolist()[:5]}."
        )
    if len(labels) < 2:
        warn_user(
            f"recall_at_fpr is undefined if 'y' holds one class, {labels.tolist()}. "
            "It is NaN."
        )
        return float("nan")
    is_positive = y_true == (labels[1] if pos_label is None else pos_label)
    rates, recalls, _ = roc_curve(is_positive, y_score, drop_intermediate=False)
    return float(recalls[rates <= fpr].max())


def threshold_at_fpr(
    estimator: BaseEstimator,
    X: Any,  # noqa: ANN401 - what the estimator takes
    y: ArrayLike,
    fpr: float,
    *,
    confidence: float = 0.95,
    groups: ArrayLike | None = None,
    pos_label: object = None,
) -> FixedThresholdClassifier:
    r"""Choose a threshold whose false-positive rate on new samples stays below a limit.

    Parameters
    ----------
    estimator : classifier
        A fitted classifier of two classes, alone or in a pipeline, that predicts
        probabilities or decision values.
    X : array-like of shape (n_samples, ...)
        Samples that the estimator was not fitted on, from the same distribution as the
        samples to be classified later.
    y : array-like of shape (n_samples,)
        Their labels. Only samples of the negative class are used.
    fpr : float
        The limit of the false-positive rate, between 0 and 1.
    confidence : float, default=0.95
        The probability, over draws of the samples, that the rate stays below ``fpr``.
    groups : array-like of shape (n_samples,), default=None
        Groups of samples that are not independent, such as those of one author. Each
        group is then represented by its highest score, and the guarantee is stronger:
        ``fpr`` limits the share of new groups in which any negative sample is flagged.
    pos_label : object, default=None
        The label of the positive class; None: the second of ``classes_``.

    Returns
    -------
    sklearn.model_selection.FixedThresholdClassifier
        A fitted classifier that contains the estimator, and predicts the positive class
        at or above the threshold. :func:`save_artifacts` saves it.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.
    ValueError
        If there are too few negative samples or groups for this limit and confidence;
        the message says how many are needed. Or if another parameter is invalid.

    See Also
    --------
    recall_at_fpr : Scores a probe by its recall at a false-positive rate.

    Notes
    -----
    Of n independent negative scores, the threshold is just above the (k + 1)-th
    highest. Its false-positive rate on new samples is then at most a
    :math:`\mathrm{Beta}(k + 1, n - k)` variable [1]_, which stays below ``fpr`` with
    the probability that a binomial variable of n draws with probability ``fpr`` exceeds
    k. The largest k for which this probability is at least ``confidence`` is used. This
    holds for any distribution of scores. With k = 0, it needs :math:`n \ge \log(1 -
    \mathrm{confidence}) / \log(1 - \mathrm{fpr})`.

    References
    ----------
    .. [1] S. S. Wilks (1941). Determination of Sample Sizes for Setting Tolerance
       Limits. Annals of Mathematical Statistics 12.

    Examples
    --------
    >>> import numpy as np
    >>> from plug_sklearn import threshold_at_fpr
    >>> from sklearn.linear_model import LogisticRegression
    >>> y = np.arange(1200) % 2
    >>> X = np.random.default_rng(0).normal(size=(1200, 4)) + 2 * y[:, None]
    >>> probe = LogisticRegression().fit(X[:200], y[:200])
    >>> monitor = threshold_at_fpr(probe, X[200:], y[200:], 0.02)
    >>> bool(monitor.predict(X[200:])[y[200:] == 0].mean() < 0.02)
    True
    """
    owner = "threshold_at_fpr"
    for name, value in (("fpr", fpr), ("confidence", confidence)):
        _check_share(name, value, owner)
    check_estimator(estimator, owner)
    check_rows(X, y, groups, owner)
    labels = column_or_1d(y)
    positive = _find_positive(estimator, labels, pos_label)
    scores, method = _score_rows(estimator, X, positive)
    is_negative = labels != positive
    negatives = scores[is_negative]
    unit = "samples"
    if groups is not None:
        unit = "groups with samples"
        of_groups = pd.Series(negatives).groupby(np.asarray(groups)[is_negative])
        negatives = of_groups.max().to_numpy(dtype=scores.dtype)
    n_allowed = _count_allowed(len(negatives), fpr, confidence, unit)
    highest = np.sort(negatives)[::-1][n_allowed]
    threshold = float(np.nextafter(highest, np.array(np.inf, dtype=scores.dtype)))
    return FixedThresholdClassifier(
        FrozenEstimator(estimator),
        threshold=threshold,
        response_method=method,
        pos_label=pos_label,
    ).fit(X, labels)


def _count_allowed(n_negatives: int, fpr: float, confidence: float, unit: str) -> int:
    """Count the negative scores that may be at or above the threshold.

    Raises a ValueError if even a threshold above all of them does not guarantee enough.
    """
    chances = stats.binom.cdf(np.arange(n_negatives), n_negatives, fpr)
    n_possible = np.count_nonzero(chances <= 1 - confidence)
    if n_possible:
        return int(n_possible) - 1
    needed = ceil(log(1 - confidence) / log1p(-fpr))
    raise ValueError(
        f"threshold_at_fpr needs {needed} {unit} of the negative class to ensure a "
        f"false-positive rate below {fpr} with confidence {confidence}. Got "
        f"{n_negatives}. Give more, or choose a higher 'fpr' or a lower 'confidence'."
    )


def _check_share(name: str, value: Any, owner: str) -> None:  # noqa: ANN401 - anything else is refused
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not 0 < value < 1:
        raise ValueError(
            f"The {name!r} parameter of {owner} must be a number between 0 and 1. Got "
            f"{describe(value)} instead."
        )


def _find_positive(
    estimator: Any,  # noqa: ANN401 - anything else is refused
    labels: NDArray[Any],
    pos_label: object,
) -> object:
    check_is_fitted(estimator)
    classes = np.asarray(getattr(estimator, "classes_", [])).tolist()
    if len(classes) != 2:
        raise ValueError(
            "The 'estimator' parameter of threshold_at_fpr must be a classifier of two "
            f"classes. Got {type(estimator).__name__} with classes {classes} instead."
        )
    unknown = sorted(set(labels.tolist()) - set(classes), key=str)
    if unknown:
        raise ValueError(
            f"The 'y' parameter of threshold_at_fpr must hold labels among {classes}. "
            f"Got {unknown[:5]} instead."
        )
    if pos_label is not None and pos_label not in classes:
        raise ValueError(
            f"The 'pos_label' parameter of threshold_at_fpr must be among {classes}. "
            f"Got {pos_label!r} instead."
        )
    return classes[1] if pos_label is None else pos_label


def _score_rows(
    estimator: Any,  # noqa: ANN401 - a fitted classifier
    X: Any,  # noqa: ANN401 - what it takes
    positive: object,
) -> tuple[NDArray[np.floating], str]:
    """Return scores of the positive class, and the method that gave them."""
    column = estimator.classes_.tolist().index(positive)
    methods = ("predict_proba", "decision_function")
    method = next((name for name in methods if hasattr(estimator, name)), None)
    if method is None:
        raise ValueError(
            "The 'estimator' parameter of threshold_at_fpr must predict probabilities "
            f"or decision values. Got {type(estimator).__name__} instead."
        )
    try:
        values = getattr(estimator, method)(X)
    except ValueError as error:
        refusal = shorten_error(str(error))
    else:
        if method == "predict_proba":
            return values[:, column], method
        return values if column == 1 else -values, method
    raise ValueError(
        "The 'X' parameter of threshold_at_fpr must be samples that "
        f"{type(estimator).__name__} was fitted for. It said: {refusal}"
    )
