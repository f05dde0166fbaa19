import pytest
from _readable import GROUPS, X, Y
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
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
