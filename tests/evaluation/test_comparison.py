from math import sqrt

import numpy as np
import pytest
from _readable import GROUPS, X, Y
from numpy.testing import assert_allclose
from scipy import stats
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


RNG = np.random.default_rng(0)


def test_difference_and_test_are_what_the_hand_finds() -> None:
    found = compare_scores([0.9, 0.8, 0.9], [0.7, 0.7, 0.6], n_train=80, n_test=40)
    error = sqrt((1 / 3 + 40 / 80) * 0.01)  # differences 0.2, 0.1, 0.3
    assert_allclose(found.difference, 0.2)
    assert_allclose((found.first, found.second), (2.6 / 3, 2 / 3))
    assert_allclose(found.standard_error, error)
    assert_allclose(found.statistic, 0.2 / error)
    assert found.degrees_of_freedom == 2
    # Student's distribution of two degrees of freedom has a closed form.
    t = 0.2 / error
    assert_allclose(found.pvalue, 1 - t / sqrt(2 + t * t))


def test_the_interval_ends_where_the_pvalue_is_what_the_level_leaves() -> None:
    first, second = RNG.normal(size=(2, 10))
    found = compare_scores(first, second, n_train=90, n_test=10, level=0.9)
    for end in (found.lower, found.upper):
        moved = compare_scores(first - end, second, n_train=90, n_test=10)
        assert_allclose(moved.pvalue, 0.1)


def test_without_overlap_it_is_the_paired_t_test() -> None:
    first, second = RNG.normal(size=(2, 10))
    found = compare_scores(first, second, n_train=1e12, n_test=1)
    expected = stats.ttest_rel(first, second)
    assert_allclose(found.statistic, expected.statistic)
    assert_allclose(found.pvalue, expected.pvalue)


def test_exchanging_the_probes_turns_the_sign_alone() -> None:
    first, second = RNG.normal(size=(2, 5))
    one = compare_scores(first, second, n_train=4, n_test=1)
    other = compare_scores(second, first, n_train=4, n_test=1)
    assert_allclose(one.difference, -other.difference)
    assert_allclose((one.lower, one.upper), (-other.upper, -other.lower))
    assert_allclose(one.pvalue, other.pvalue)


def test_equal_probes_differ_in_nothing() -> None:
    found = compare_scores([0.7, 0.9], [0.7, 0.9], n_train=4, n_test=1)
    assert (found.difference, found.lower, found.upper, found.pvalue) == (0, 0, 0, 1)


def test_a_difference_that_never_varies_is_certain() -> None:
    found = compare_scores([0.8, 1.0, 0.4], [0.7, 0.9, 0.3], n_train=4, n_test=1)
    assert_allclose((found.lower, found.upper, found.pvalue), (0.1, 0.1, 0))


def test_what_rounding_leaves_of_equal_scores_is_no_difference() -> None:
    found = compare_scores([0.1 + 0.2] * 3, [0.3] * 3, n_train=4, n_test=1)
    assert (found.difference, found.statistic, found.pvalue) == (0, 0, 1)


def test_equally_good_probes_are_rarely_called_different() -> None:
    """The share of false alarms over random splits is about what it claims."""
    rng = np.random.default_rng(0)
    alarms = {"corrected": 0, "plain": 0}
    for _ in range(200):
        # Two probes are right at random, on rows that all folds share.
        right = rng.random(size=(2, 100)) < 0.7
        folds = [rng.permutation(100)[:20] for _ in range(15)]
        scores = [[probe[rows].mean() for rows in folds] for probe in right]
        found = compare_scores(*scores, n_train=80, n_test=20)
        alarms["corrected"] += found.pvalue < 0.05
        alarms["plain"] += stats.ttest_rel(*scores).pvalue < 0.05
    assert alarms["corrected"] <= 30 < alarms["plain"]


def test_a_comparison_prints_its_difference_and_pvalue() -> None:
    found = compare_scores([0.9, 0.8, 0.9], [0.7, 0.7, 0.6], n_train=80, n_test=40)
    assert str(found) == "+0.200 [-0.193, +0.593], p = 0.16"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"first": [0.5]}, "inconsistent numbers"),
        ({"first": [0.5], "second": [0.5]}, "two folds or more"),
        ({"first": [0.5, np.nan]}, r"must be finite .* Got \[0.5, nan\]"),
        ({"first": [0.5, np.inf]}, "must be finite"),
        ({"n_train": 0}, "'n_train' parameter of compare_scores"),
        ({"level": 95}, "'level' parameter of compare_scores"),
    ],
)
def test_bad_input_is_named(arguments: dict[str, object], message: str) -> None:
    given = {"first": [1, 2], "second": [1, 1], "n_train": 4, "n_test": 1}
    with pytest.raises(ValueError, match=message):
        compare_scores(**{**given, **arguments})
