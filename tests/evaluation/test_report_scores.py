import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.metrics import get_scorer, roc_auc_score

from plug_sklearn.evaluation._report_scores import (
    PooledClassifier,
    choose_default_scorers,
    measure_auc,
)

RNG = np.random.default_rng(0)
ROWS = np.arange(90)
NAMES = np.array(["ant", "bee", "cat"])


@pytest.mark.parametrize("classes", [np.array([0, 1]), NAMES])
def test_default_scores_are_those_of_scikit_learns_scorers(
    classes: np.ndarray,
) -> None:
    y = classes[ROWS % len(classes)]
    pooled = PooledClassifier(classes, RNG.dirichlet(np.ones(len(classes)), size=90))
    for name, scorer in choose_default_scorers(classes).items():
        if isinstance(scorer, str):
            continue
        expected = get_scorer(name)(pooled, ROWS, y)
        assert_allclose(scorer(pooled, ROWS, y), expected)


def test_rows_of_one_class_have_losses_and_no_rank() -> None:
    pooled = PooledClassifier(NAMES, RNG.dirichlet(np.ones(3), size=90))
    y = np.repeat("bee", 90)
    scorers = choose_default_scorers(NAMES)
    assert np.isnan(scorers["roc_auc_ovr"](pooled, ROWS, y))
    expected = np.log(pooled.probabilities[:, 1]).mean()
    assert_allclose(scorers["neg_log_loss"](pooled, ROWS, y), expected)
    assert np.isfinite(scorers["neg_brier_score"](pooled, ROWS, y))


def test_the_area_is_of_the_second_class_by_name() -> None:
    p = RNG.random(90)
    y = NAMES[ROWS % 2]
    assert_allclose(measure_auc(y, p, NAMES[:2]), roc_auc_score(ROWS % 2, p))
