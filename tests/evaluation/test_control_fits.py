"""A probe is scored as scikit-learn would, whichever way it is fitted."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import plug_sklearn.classifiers
from plug_sklearn import LayerAggregator, PlugMLPClassifier
from plug_sklearn.evaluation._control_fits import score_probe

RNG = np.random.default_rng(0)
Y = np.arange(60) % 2
GROUPS = np.arange(60) // 6
X = RNG.normal(size=(60, 3, 1, 16)).astype(np.float32)
X[:, 1, 0, 0] += 2 * Y
FOLDS = list(GroupKFold(3).split(X, Y, GROUPS))
MLP = PlugMLPClassifier(max_epochs=4, random_state=0, device="cpu")


@pytest.mark.parametrize(
    ("probe", "is_joint"),
    [
        (make_pipeline(LayerAggregator(layers=[1]), MLP), True),
        (make_pipeline(LayerAggregator(), MLP), True),
        (MLP, True),
        (make_pipeline(LayerAggregator(layers=[1]), StandardScaler(), MLP), False),
        (make_pipeline(LayerAggregator(layers=[1]), LogisticRegression()), False),
    ],
)
def test_scores_are_those_of_separate_fits(
    probe: BaseEstimator, is_joint: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = "groups"
    if probe is not MLP and isinstance(probe[-1], PlugMLPClassifier):
        groups = "plugmlpclassifier__groups"
    takes_groups = probe is MLP or isinstance(probe[-1], PlugMLPClassifier)
    expected = cross_val_score(
        probe,
        X,
        Y,
        cv=FOLDS,
        scoring="neg_log_loss",
        params={groups: GROUPS} if takes_groups else None,
    )
    calls = []
    fit_jointly = plug_sklearn.classifiers.fit_jointly
    monkeypatch.setattr(
        plug_sklearn.classifiers,
        "fit_jointly",
        lambda *given: [calls.append(len(given[0])), fit_jointly(*given)],
    )
    table = score_probe(probe, X, Y, GROUPS, FOLDS, "neg_log_loss", None)
    assert table["neg_log_loss"].tolist() == pytest.approx(expected)
    assert table["fold"].tolist() == [0, 1, 2]
    assert calls == ([3] if is_joint else [])
