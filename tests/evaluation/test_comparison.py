import numpy as np
import pytest
from _readable import GROUPS, X, Y
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import (
    GroupKFold,
    LeaveOneGroupOut,
    ShuffleSplit,
    cross_val_score,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline

from plug_sklearn import LayerAggregator, compare_probes, compare_scores


def test_probes_are_scored_on_the_same_folds_as_scikit_learn_would() -> None:
    probes = [
        make_pipeline(LayerAggregator(layers=[1], parts=[0]), probe)
        for probe in (LogisticRegression(), GaussianNB())
    ]
    cv, scoring = GroupKFold(5), ["roc_auc", "accuracy"]
    table = compare_probes(*probes, X, Y, cv=cv, groups=GROUPS, scoring=scoring)
    assert table.index.tolist() == scoring
    for score in scoring:
        by_fold = [
            cross_val_score(probe, X, Y, cv=cv, groups=GROUPS, scoring=score)
            for probe in probes
        ]
        expected = compare_scores(*by_fold, n_train=96, n_test=24)
        assert table.loc[score].to_dict() == pytest.approx(vars(expected))


def test_a_probe_that_reads_the_label_beats_one_that_cannot() -> None:
    reads, cannot = (
        make_pipeline(LayerAggregator(layers=[layer]), LogisticRegression())
        for layer in (1, 0)
    )
    table = compare_probes(reads, cannot, X, Y, cv=5, n_jobs=2)
    assert table.loc["score", "lower"] > 0
    assert table.loc["score", "pvalue"] < 0.05


class Unfit(LogisticRegression):
    """Must not be fitted."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> "Unfit":
        raise AssertionError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"level": 95}, "'level' parameter of compare_probes"),
        ({"cv": ShuffleSplit(1)}, "'cv' parameter of compare_probes .* Got 1"),
        ({"second": Ridge()}, "'scoring' parameter of compare_probes .* Got None"),
    ],
)
def test_what_cannot_be_compared_is_named_before_anything_is_fitted(
    arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        compare_probes(
            **{"first": Unfit(), "second": Unfit(), "X": X, "y": Y, **arguments}
        )


def test_a_probe_without_a_score_in_a_fold_is_named_with_the_fold() -> None:
    groups = np.where(GROUPS < 10, 0, 1 + Y)  # two of three groups are of one class
    with (
        pytest.warns(UndefinedMetricWarning),
        pytest.raises(
            ValueError,
            match=r"'first' parameter .* NaN for 'roc_auc' in folds \[1, 2\]",
        ),
    ):
        compare_probes(
            LogisticRegression(),
            GaussianNB(),
            X[:, 1, 0],
            Y,
            cv=LeaveOneGroupOut(),
            groups=groups,
            scoring="roc_auc",
        )
