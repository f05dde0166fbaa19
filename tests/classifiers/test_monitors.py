import re
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from _activations import X, Y
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    get_scorer,
    log_loss,
    make_scorer,
    max_error,
    roc_auc_score,
)

from plug_sklearn.classifiers._classifiers import BasePlugClassifier
from plug_sklearn.classifiers._monitors import check_monitor, takes_sample_weight


def measure(y: np.ndarray, predicted: np.ndarray, weight: object = None) -> float:
    """Measure nothing: a metric that takes three arguments, as scorers do."""
    return 0.0


@pytest.mark.parametrize(
    "metric",
    [
        roc_auc_score,
        accuracy_score,
        log_loss,
        partial(f1_score, average="macro"),
        lambda y_true, y_pred: 0.0,
        measure,
    ],
)
def test_a_metric_is_refused_with_what_makes_a_scorer_of_it(
    probe: BasePlugClassifier, metric: Callable[..., float]
) -> None:
    name = getattr(metric, "__name__", "metric")
    message = (
        f"The 'monitor' parameter of {type(probe).__name__} must be 'loss', the name "
        "of a scikit-learn scorer such as 'roc_auc', or a scorer, which is called as "
        "scorer(estimator, X, y). sklearn.metrics.make_scorer makes one of a metric: "
        f"make_scorer({name}). Got {metric!r} instead."
    )
    probe.set_params(monitor=metric)
    # Even where no rows are held out.
    for n_rows in (80, 10):
        with pytest.raises(ValueError, match=re.escape(message)):
            probe.fit(X[:n_rows], Y[:n_rows])


@pytest.mark.parametrize(
    "scorer",
    [
        "roc_auc",
        get_scorer("accuracy"),
        make_scorer(f1_score),
        partial(get_scorer("accuracy"), sample_weight=None),
        lambda estimator, X, y: 0.0,
        lambda *arguments: 0.0,
        max,
    ],
)
def test_scorers_of_any_kind_are_taken(scorer: str | Callable[..., float]) -> None:
    check_monitor(scorer, "Probe")


def test_scorers_take_weights_where_they_or_their_metric_do() -> None:
    assert takes_sample_weight(get_scorer("accuracy"))
    assert takes_sample_weight(lambda estimator, X, y, sample_weight: 0.0)
    assert not takes_sample_weight(make_scorer(max_error))
    assert not takes_sample_weight(lambda estimator, X, y: 0.0)
    assert not takes_sample_weight(max)
