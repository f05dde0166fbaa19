"""Arguments in a wrong order, and groups that are missing, are refused in few words."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from _readable import GROUPS, X, Y
from numpy.testing import assert_array_equal
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    LeaveOneGroupOut,
    StratifiedGroupKFold,
)
from sklearn.pipeline import make_pipeline

from plug_sklearn import (
    BestLayerClassifier,
    HFEmbeddingTransformer,
    LayerAggregator,
    PlugMLPClassifier,
    PlugStackClassifier,
    bootstrap_interval,
    capacity_curve,
    check_pipeline,
    compare_probes,
    cross_validation_report,
    layer_sweep,
    probe_controls,
    probe_direction,
    score_tokens,
    summarize_layers,
    threshold_at_fpr,
    transfer_matrix,
)

PROBE = LogisticRegression()
MLP = PlugMLPClassifier(max_epochs=1, n_members=1, device="cpu", random_state=0)
FEATURES = X[:, 1, 0].astype(np.float64)
FITTED = LogisticRegression().fit(FEATURES, Y)
MISSING = np.where(GROUPS == GROUPS[0], np.nan, GROUPS)
Call = Callable[..., Any]


def transfer(estimator: Any, rows: Any, labels: Any, **options: Any) -> Any:  # noqa: ANN401
    if "groups" in options:
        options["groups"] = {"one": options["groups"], "two": options["groups"]}
    datasets = {"one": (rows, labels), "two": (rows, labels)}
    return transfer_matrix(estimator, datasets, **options)


def compare(estimator: Any, rows: Any, labels: Any, **options: Any) -> Any:  # noqa: ANN401
    return compare_probes(estimator, PROBE, rows, labels, **options)


def choose(estimator: Any, rows: Any, labels: Any, **options: Any) -> Any:  # noqa: ANN401
    chooser = BestLayerClassifier(estimator, cv=options.pop("cv", None))
    return chooser.fit(rows, labels, **options)


def limit(estimator: Any, rows: Any, labels: Any, **options: Any) -> Any:  # noqa: ANN401
    return threshold_at_fpr(estimator, rows, labels, 0.5, **options)


#: Functions of an estimator, rows and labels, with what suits them.
FUNCTIONS: dict[str, tuple[Call, Any, Any]] = {
    "layer_sweep": (layer_sweep, PROBE, X),
    "probe_controls": (
        probe_controls,
        make_pipeline(LayerAggregator(), PROBE),
        X,
    ),
    "capacity_curve": (capacity_curve, MLP, FEATURES),
    "compare_probes": (compare, PROBE, FEATURES),
    "transfer_matrix": (transfer, PROBE, FEATURES),
    "cross_validation_report": (cross_validation_report, PROBE, FEATURES),
    "threshold_at_fpr": (limit, FITTED, FEATURES),
    "BestLayerClassifier": (choose, PROBE, X),
}
#: Those that split rows into folds.
FOLDED = [name for name in FUNCTIONS if name != "threshold_at_fpr"]


def refuse(call: Call, *args: Any, **options: Any) -> str:  # noqa: ANN401
    with pytest.raises((TypeError, ValueError)) as raised:
        call(*args, **options)
    message = str(raised.value)
    assert len(message) < 260
    return message


@pytest.mark.parametrize("name", FUNCTIONS)
def test_exchanged_arguments_are_named_in_few_words(name: str) -> None:
    call, estimator, rows = FUNCTIONS[name]
    wanted = [
        ((estimator, Y, rows), "'X' parameter of"),
        ((estimator, rows, rows[:, None, None, None]), "'y' parameter of"),
        ((estimator, rows, estimator), "'y' parameter of"),
        ((estimator, rows, None), "'y' parameter of"),
        ((estimator, rows, Y[:7]), "'y' parameter of"),
    ]
    if name != "BestLayerClassifier":
        parameter = {"probe_controls": "pipeline", "compare_probes": "first"}
        shown = f"'{parameter.get(name, 'estimator')}' parameter of"
        wanted += [
            ((given, other, Y), shown)
            for given, other in ((rows, estimator), (Y, rows), (type(estimator), rows))
        ]
    for args, expected in wanted:
        assert f"{expected} {name}" in refuse(call, *args)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (MISSING, "missing, at positions [0"),
        ([None, *GROUPS[1:]], "1 missing, at positions [0]"),
        (GROUPS[:5], "Got 5 for"),
        (FEATURES, f"Got ndarray of shape {FEATURES.shape}"),
        ("groups", "Got 'groups'"),
    ],
)
def test_groups_are_refused_by_name(name: str, groups: Any, message: str) -> None:  # noqa: ANN401
    call, estimator, rows = FUNCTIONS[name]
    found = refuse(call, estimator, rows, Y, groups=groups)
    assert f"'groups' parameter of {name}" in found
    assert message in found


@pytest.mark.parametrize("groups", [MISSING, [None, *GROUPS[1:]]])
def test_estimators_and_intervals_refuse_missing_groups(groups: Any) -> None:  # noqa: ANN401
    for probe in (MLP, PlugStackClassifier()):
        rows = X if probe is not MLP else FEATURES
        assert "'groups' given to" in refuse(clone(probe).fit, rows, Y, groups=groups)
    interval = refuse(bootstrap_interval, np.mean, Y, Y, groups=groups)
    assert "'groups' parameter of bootstrap_interval" in interval


class Folds(ClassifierMixin, BaseEstimator):
    """Remembers the groups of the rows that it is fitted on, one of its features."""

    def fit(self, X: Any, y: Any) -> "Folds":  # noqa: ANN401
        self.classes_ = np.unique(y)
        self.seen_ = set(np.asarray(X)[:, -1].tolist())
        return self

    def predict(self, X: Any) -> np.ndarray:  # noqa: ANN401
        overlap = self.seen_ & set(np.asarray(X)[:, -1].tolist())
        return np.full(len(X), self.classes_[int(not overlap)])

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: ANN401
        return np.tile([0.5, 0.5], (len(X), 1))


@pytest.mark.parametrize("cv", [None, 3, np.int64(3)])
def test_number_of_folds_keeps_groups_together(cv: int | None) -> None:
    """The score is 1 on rows of class 1 where no group is on both sides of a fold."""
    own = np.random.default_rng(0).permutation(GROUPS)
    marked = np.concatenate([FEATURES, own[:, None]], axis=1)
    layers = np.broadcast_to(marked[:, None, None], (len(Y), 2, 1, marked.shape[1]))
    for groups, expected in ((own, 1.0), (None, 0.0)):
        options = {"cv": cv, "groups": groups, "scoring": "recall"}
        sweep = layer_sweep(Folds(), layers, Y, **options)
        report = cross_validation_report(Folds(), marked, Y, **options)
        assert_array_equal(sweep["recall"], expected)
        assert_array_equal(report.scores["recall"], expected)


@pytest.mark.parametrize("name", FOLDED)
def test_splitter_of_groups_asks_for_them(name: str) -> None:
    call, estimator, rows = FUNCTIONS[name]
    for cv in (GroupKFold(2), LeaveOneGroupOut()):
        found = refuse(call, estimator, rows, Y, cv=cv)
        assert f"'groups' parameter of {name} must have a group" in found


@pytest.mark.parametrize("name", FOLDED)
def test_fewer_groups_than_folds_are_refused(name: str) -> None:
    call, estimator, rows = FUNCTIONS[name]
    groups = np.arange(len(Y)) % 2
    found = refuse(call, estimator, rows, Y, cv=4, groups=groups)
    assert f"'groups' parameter of {name} must have 4 groups" in found


def test_groups_of_regressors_are_kept_together() -> None:
    values = FEATURES[:, 0]
    found = layer_sweep(LinearRegression(), X, values, groups=GROUPS, cv=3)
    expected = layer_sweep(
        LinearRegression(), X, values, groups=GROUPS, cv=GroupKFold(3)
    )
    scores = ["layer", "part", "fold", "score"]
    pd.testing.assert_frame_equal(found[scores], expected[scores])


def test_other_functions_name_what_is_wrong() -> None:
    texts = ["Gold is a metal."] * 1000
    for call, args, expected in (
        (summarize_layers, (X,), "'sweep' parameter of summarize_layers"),
        (summarize_layers, (PROBE,), "'sweep' parameter of summarize_layers"),
        (score_tokens, (texts, PROBE), "'pipeline' parameter of score_tokens"),
        (probe_direction, (FEATURES, PROBE), "'estimator' parameter of probe_dir"),
        (threshold_at_fpr, (FITTED, FEATURES, Y, Y), "'fpr' parameter of threshold"),
        (check_pipeline, (texts, PROBE, Y), "'pipeline' parameter of check_pipeline"),
    ):
        assert expected in refuse(call, *args)


def test_layers_of_two_axes_are_refused_by_the_class_that_was_fitted() -> None:
    found = refuse(BestLayerClassifier().fit, FEATURES, Y)
    assert found.startswith("The 'X' parameter of BestLayerClassifier")
    assert "embedder" not in found


TEXTS = [f"Gold has the number {n}." for n in range(40)]
LABELS = ["yes", "no"] * 20
OWN = np.arange(40) // 4


def test_check_tells_where_groups_do_not_go(llama: str) -> None:
    pipeline = make_pipeline(
        HFEmbeddingTransformer(llama), LayerAggregator(), clone(MLP)
    )
    grid = {"plugmlpclassifier__dropout": [0.1]}
    search = GridSearchCV(pipeline, grid, cv=StratifiedGroupKFold(2))
    with pytest.warns(UserWarning, match=r"only its folds.*plugmlpclassifier__groups"):
        check_pipeline(search, TEXTS, LABELS, groups=OWN)
    # The same arguments are what fit takes.
    params = {"plugmlpclassifier__groups": OWN}
    check_pipeline(search, TEXTS, LABELS, groups=OWN, params=params)
    search.set_params(cv=2)
    with pytest.warns(UserWarning, match=r"do not keep groups together with cv=2"):
        check_pipeline(search, TEXTS, LABELS, groups=OWN, params=params)
    with pytest.raises(ValueError, match="'groups' parameter of check_pipeline"):
        check_pipeline(search, TEXTS, LABELS, groups=OWN[:3])


def test_groups_given_twice_reach_the_folds_and_the_probe() -> None:
    """Without metadata routing, as the warning of check_pipeline advises."""
    pipeline = make_pipeline(LayerAggregator(), clone(MLP))
    grid = {"plugmlpclassifier__dropout": [0.1]}
    search = GridSearchCV(pipeline, grid, cv=StratifiedGroupKFold(2))
    search.fit(X, Y, groups=GROUPS, plugmlpclassifier__groups=GROUPS)
    expected = clone(MLP).set_params(dropout=0.1)
    expected.fit(LayerAggregator().fit_transform(X), Y, groups=GROUPS)
    assert_array_equal(
        search.predict_proba(X),
        expected.predict_proba(LayerAggregator().fit_transform(X)),
    )


@pytest.mark.parametrize(
    "wrong",
    [["Gold is a metal."] * len(Y), FEATURES * np.nan],
    ids=["texts", "NaN"],
)
def test_rows_that_no_fold_can_be_fitted_to_are_told_of_once(wrong: Any) -> None:  # noqa: ANN401
    """scikit-learn tells of each fold, with its traceback and other estimators."""
    for name in ("capacity_curve", "compare_probes", "threshold_at_fpr"):
        call, estimator, _ = FUNCTIONS[name]
        found = refuse(call, estimator, wrong, Y)
        assert "\n" not in found
        named = "'X' parameter of" if name == "threshold_at_fpr" else "all 5 fits fail"
        assert named in found
        assert type(estimator).__name__ in found


def test_labels_of_two_axes_are_refused_in_few_words() -> None:
    for name in FUNCTIONS:
        call, estimator, rows = FUNCTIONS[name]
        found = refuse(call, estimator, rows, np.stack([Y, Y], axis=1))
        assert "y should be a 1d array" in found


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_missing_labels_are_refused_by_name(name: str, missing: object) -> None:
    call, estimator, rows = FUNCTIONS[name]
    found = refuse(call, estimator, rows, [missing, *Y[1:]])
    assert f"'y' parameter of {name} must have a value for each sample" in found
    assert "Got 1 missing, at positions [0]." in found


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_activations_that_are_not_finite_are_refused_with_their_rows(
    wrong: float,
) -> None:
    rows = X.copy()
    rows[3, 0, 0, 0] = wrong
    for name, (call, estimator, suited) in FUNCTIONS.items():
        if np.ndim(suited) > 2:
            with pytest.raises(
                ValueError, match=r"'X' .*in 1 of \d+ samples.*\[3\]"
            ) as raised:
                call(estimator, rows, Y)
            assert len(str(raised.value)) < 200, name


@pytest.mark.parametrize("wrap", [list, pd.Series])
def test_labels_of_tokens_are_refused(wrap: Callable[[list[Any]], Any]) -> None:
    labels = wrap([[0] * (1 + row % 3) for row in range(len(Y))])
    for name, (call, estimator, rows) in FUNCTIONS.items():
        message = r"'y' parameter of \w+ must have one label.*labels of tokens"
        with pytest.raises(ValueError, match=message) as raised:
            call(estimator, rows, labels)
        assert len(str(raised.value)) < 200, name


def test_missing_features_are_left_to_the_pipeline() -> None:
    features = FEATURES.copy()
    features[0, 0] = np.nan
    probe = make_pipeline(SimpleImputer(), PROBE)
    assert threshold_at_fpr(probe.fit(features, Y), features, Y, 0.9) is not None
