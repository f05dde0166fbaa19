"""What users pass as ``monitor``, checked, and what it can be called with."""

from collections.abc import Callable
from inspect import signature

Scorer = Callable[..., float]


def check_monitor(monitor: str | Scorer, owner: str) -> None:
    """Check that what is to be monitored is no metric.

    Parameters
    ----------
    monitor : str or callable
        ``"loss"``, the name of a scorer, or a callable.
    owner : str
        Name of the estimator, for messages.

    Raises
    ------
    ValueError
        If it is a callable that cannot be called with an estimator, ``X`` and ``y``,
        or that takes labels first, as metrics do.
    """
    if isinstance(monitor, str):
        return
    try:
        bound = signature(monitor).bind(None, None, None)
    except TypeError:
        is_scorer = False
    except ValueError:
        # A callable without a signature, written in C.
        is_scorer = True
    else:
        is_scorer = next(iter(bound.arguments)) not in ("y", "y_true", "y_pred")
    if not is_scorer:
        name = getattr(monitor, "__name__", "metric")
        raise ValueError(
            f"The 'monitor' parameter of {owner} must be 'loss', the name of a "
            "scikit-learn scorer such as 'roc_auc', or a scorer, which is called as "
            "scorer(estimator, X, y). sklearn.metrics.make_scorer makes one of a "
            f"metric: make_scorer({name}). Got {monitor!r} instead."
        )


def takes_sample_weight(scorer: Scorer) -> bool:
    """Tell whether a scorer can be called with ``sample_weight``.

    Parameters
    ----------
    scorer : callable
        A scorer of scikit-learn, which passes it on to its metric; or any other, called
        with an estimator, ``X`` and ``y``.

    Returns
    -------
    bool
        False where the signature is not known.
    """
    metric = getattr(scorer, "_score_func", scorer)
    try:
        return "sample_weight" in signature(metric).parameters
    except (TypeError, ValueError):
        return False
