import numpy as np
import pytest
from _readable import GROUPS, Fastidious, X, Y
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, KFold, cross_val_score
from sklearn.pipeline import make_pipeline

from plug_sklearn import (
    LayerAggregator,
    PlugCNNClassifier,
    PlugMLPClassifier,
    capacity_curve,
)

PROBE = PlugMLPClassifier(max_epochs=2, random_state=0, device="cpu")
FEATURES = X[:, 1, 0]


# The fits by hand, to which the rows are compared, tell of their limit.
@pytest.mark.filterwarnings("ignore:The 'target_ratio' parameter of")
def test_a_row_is_the_score_and_size_at_its_ratio() -> None:
    curve = capacity_curve(PROBE, FEATURES, Y, target_ratios=[1, 8], cv=2)
    assert curve["target_ratio"].tolist() == [1, 1, 8, 8]
    assert curve["fold"].tolist() == [0, 1, 0, 1]
    assert (curve["n_train"] == 60).all()
    for ratio, rows in curve.groupby("target_ratio"):
        probe = PlugMLPClassifier(
            target_ratio=ratio, max_epochs=2, random_state=0, device="cpu"
        )
        assert_allclose(rows["score"], cross_val_score(probe, FEATURES, Y, cv=2))
        fitted = probe.fit(FEATURES[:60], Y[:60])
        assert (rows["n_parameters"] == fitted.n_parameters_).all()


@pytest.mark.parametrize(
    ("make", "least", "n_least"),
    [(PlugMLPClassifier, 16, 58_180), (PlugCNNClassifier, 8, None)],
)
def test_ratios_of_one_network_say_which_limit_it_has(
    make: type, least: int, n_least: int | None
) -> None:
    # 90 training rows of so many features that every default ratio asks for less.
    wide = np.random.default_rng(0).normal(size=(120, 576))
    probe = make(max_epochs=1, random_state=0, device="cpu")
    ratios = [0.625, 1.25, 1000, 2000]
    curve = capacity_curve(probe, wide, Y, target_ratios=ratios, cv=KFold(4))
    by_ratio = curve.groupby("target_ratio")["width_limit"].unique().map(list)
    assert by_ratio.tolist() == [["least"], ["least"], ["most"], ["most"]]
    sizes = curve.groupby("target_ratio")["n_parameters"].unique().map(list).tolist()
    assert sizes[0] == sizes[1] != sizes[2] == sizes[3]
    smallest = make(width_cap=least, max_epochs=1, random_state=0, device="cpu")
    assert sizes[0] == [smallest.fit(wide[:90], Y[:90]).n_parameters_]
    assert n_least is None or sizes[0] == [n_least]


def test_a_network_within_its_limits_or_of_a_budget_has_none() -> None:
    few = FEATURES[:, :4]
    for sizing, ratios in (("heuristic", [2.0, 4.0]), ("budget", [30.0, 60.0])):
        probe = clone(PROBE).set_params(sizing=sizing)
        curve = capacity_curve(probe, few, Y, target_ratios=ratios, cv=2)
        assert (curve["width_limit"] == "none").all()
        assert curve["n_parameters"].nunique() == 2


def test_a_probe_in_a_pipeline_is_counted() -> None:
    pipeline = make_pipeline(LayerAggregator(layers=[1], parts=[0]), PROBE)
    name = "plugmlpclassifier__target_ratio"
    alone = capacity_curve(PROBE, FEATURES, Y, target_ratios=[8], cv=2)
    piped = capacity_curve(pipeline, X, Y, target_ratios=[8], param_name=name, cv=2)
    for column in ("n_parameters", "score"):
        assert_allclose(piped[column], alone[column])


def test_groups_and_several_scores_are_taken() -> None:
    curve = capacity_curve(
        PROBE,
        FEATURES,
        Y,
        target_ratios=[1],
        cv=GroupKFold(2),
        groups=GROUPS,
        scoring=["roc_auc", "accuracy"],
        n_jobs=2,
    )
    assert np.isfinite(curve[["roc_auc", "accuracy"]]).all(axis=None)


def test_what_has_no_target_ratio_is_refused() -> None:
    with pytest.raises(ValueError, match="'param_name' parameter of capacity_curve"):
        capacity_curve(LogisticRegression(), FEATURES, Y)


def test_the_parameter_of_a_step_is_named_where_it_was_meant() -> None:
    pipeline = make_pipeline(LayerAggregator(), PROBE)
    with pytest.raises(ValueError, match=r"there is 'plugmlpclassifier__target_ratio'"):
        capacity_curve(pipeline, X, Y)


@pytest.mark.parametrize(
    "wrong", [[], 5, [-1], [0], ["a"], "ab", [np.nan], [np.inf], [1, 2, 1.0]]
)
def test_ratios_are_positive_numbers(wrong: object) -> None:
    with pytest.raises(ValueError, match="'target_ratios' parameter of capacity"):
        capacity_curve(PROBE, FEATURES, Y, target_ratios=wrong)


def test_what_does_not_count_its_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'estimator' parameter .* must count"):
        capacity_curve(
            LogisticRegression(), FEATURES, Y, param_name="C", target_ratios=[1]
        )


def test_what_cannot_be_fitted_on_every_fold_is_refused_with_its_error() -> None:
    with pytest.raises(
        ValueError,
        match=r"(?s)'estimator' parameter .*not on the first row",
    ):
        capacity_curve(
            Fastidious(), FEATURES, Y, cv=KFold(3), param_name="C", target_ratios=[1]
        )
