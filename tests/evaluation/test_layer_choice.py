"""A layer, chosen by cross-validation."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GroupKFold,
    StratifiedGroupKFold,
    StratifiedKFold,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from plug_sklearn import (
    BestLayerClassifier,
    HFEmbeddingTransformer,
    LayerSweepDisplay,
    layer_sweep,
    summarize_layers,
)

RNG = np.random.default_rng(0)
Y = np.arange(120) % 2
X = RNG.normal(size=(120, 4, 2, 6)).astype(np.float32)
# Layers 1 to 3 hold the label, the last a little better than the others.
X[:, 1:, 0, 0] += Y[:, None]
X[:, 3, 0, 1] += 0.4 * Y
CV = StratifiedKFold(5)


def tabulate(scores: dict[tuple[int, str], list[float]]) -> pd.DataFrame:
    """Make a sweep of given scores, by layer and part."""
    rows = [
        (layer, part, fold, value, 0.0, 0.0)
        for (layer, part), values in scores.items()
        for fold, value in enumerate(values)
    ]
    columns = ["layer", "part", "fold", "score", "fit_time", "score_time"]
    return pd.DataFrame(rows, columns=columns)


@given(
    st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=6)
)
def test_the_rule_is_that_of_a_plain_loop(scores: list[list[float]]) -> None:
    sweep = tabulate({(layer, "rs"): own for layer, own in enumerate(scores)})
    summary = summarize_layers(sweep)
    means = [np.mean(own) for own in scores]
    errors = [np.std(own, ddof=1) / np.sqrt(len(own)) for own in scores]
    best = int(np.argmax(summary["mean"]))
    assert means[best] == pytest.approx(max(means))
    chosen = int(summary.loc[summary["is_chosen"], "layer"].iloc[0])
    assert means[chosen] >= means[best] - errors[best] - 1e-12
    assert all(means[n] < means[best] - errors[best] + 1e-12 for n in range(chosen))
    assert summary["is_best"].sum() == summary["is_chosen"].sum() == 1


def test_of_several_parts_the_better_one_of_the_first_layer_is_chosen() -> None:
    sweep = tabulate(
        {
            (7, "rs"): [0.8, 0.9],
            (3, "attn"): [0.78, 0.88],
            (3, "mlp"): [0.79, 0.89],
            (1, "rs"): [0.5, 0.5],
        }
    )
    chosen = summarize_layers(sweep).query("is_chosen")
    assert chosen[["layer", "part"]].to_numpy().tolist() == [[3, "mlp"]]


def test_with_one_fold_the_best_is_chosen() -> None:
    summary = summarize_layers(tabulate({(0, "rs"): [0.8], (1, "rs"): [0.9]}))
    assert summary["is_chosen"].tolist() == summary["is_best"].tolist() == [False, True]


def test_what_is_no_sweep_is_refused() -> None:
    with pytest.raises(ValueError, match="'sweep' parameter of summarize_layers"):
        summarize_layers(pd.DataFrame({"layer": [0]}))


@pytest.mark.parametrize("rule", ["best", "one_standard_error"])
def test_the_classifier_is_the_probe_on_the_layer_of_the_sweep(rule: str) -> None:
    chooser = BestLayerClassifier(LogisticRegression(), rule=rule, cv=CV).fit(X, Y)
    summary = summarize_layers(layer_sweep(LogisticRegression(), X, Y, cv=CV))
    column = "is_best" if rule == "best" else "is_chosen"
    (row,) = summary[summary[column]].to_dict("records")
    assert (chooser.layer_, chooser.part_) == (row["layer"], row["part"])
    assert chooser.n_features_in_ == 4
    features = X[:, row["layer"], row["part"]]
    probe = LogisticRegression().fit(features, Y)
    assert_array_equal(chooser.predict_proba(X), probe.predict_proba(features))
    assert_array_equal(chooser.predict(X), probe.predict(features))
    assert_array_equal(chooser.decision_function(X), probe.decision_function(features))


def test_the_layer_is_chosen_on_the_training_rows_alone() -> None:
    noise = RNG.normal(size=(90, 30, 1, 4))
    labels = np.arange(90) % 2
    probe = LogisticRegression()
    scores = cross_val_score(
        BestLayerClassifier(probe, rule="best"), noise, labels, cv=5, scoring="roc_auc"
    )
    best = summarize_layers(layer_sweep(probe, noise, labels, cv=5, scoring="roc_auc"))[
        "mean"
    ].max()
    # The best of thirty layers of noise seems to hold the labels.
    assert best > 0.58
    assert scores.mean() < 0.57


@pytest.mark.parametrize(("cv", "n_folds"), [(None, 5), (3, 3)])
def test_folds_that_are_not_named_keep_groups_together(
    cv: int | None, n_folds: int
) -> None:
    groups = np.arange(120) // 4
    found = BestLayerClassifier(LogisticRegression(), cv=cv).fit(X, Y, groups=groups)
    folds = StratifiedGroupKFold(n_folds)
    sweep = layer_sweep(LogisticRegression(), X, Y, cv=folds, groups=groups)
    pd.testing.assert_frame_equal(found.summary_, summarize_layers(sweep))


def test_groups_reach_the_inner_folds() -> None:
    chooser = BestLayerClassifier(LogisticRegression(), cv=GroupKFold(3))
    with pytest.raises(ValueError, match="groups"):
        chooser.fit(X, Y)
    assert chooser.fit(X, Y, groups=np.arange(120) // 4).layer_ in range(4)


@pytest.mark.parametrize("cv", [None, 4])
def test_default_folds_keep_groups_together(cv: int | None) -> None:
    groups = np.arange(120) // 2 % 30
    rows: list[set[int]] = []

    class Listening(LogisticRegression):
        def fit(self, X: np.ndarray, y: np.ndarray) -> "Listening":
            # The last unit is the group.
            rows.append(set(X[:, -1].round().astype(int).tolist()))
            return super().fit(X, y)

    numbered = X[:, :1, :1].copy()
    numbered[:, 0, 0, -1] = groups
    BestLayerClassifier(Listening(), cv=cv).fit(numbered, Y, groups=groups)
    *folds, final = rows
    assert len(folds) == (cv or 5)
    assert final == set(range(30))
    # Each group is held out by exactly one fold.
    held_out = [group for own in folds for group in final - own]
    assert sorted(held_out) == sorted(final)


def test_one_class_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"at least two classes\. Got one class, 'a'"):
        BestLayerClassifier().fit(X, ["a"] * 120)


def test_layers_are_those_of_the_model_at_the_end_of_a_pipeline(llama: str) -> None:
    texts = [f"Gold has the number {n}." for n in range(12)]
    labels = ["yes", "no"] * 6
    pipeline = make_pipeline(
        HFEmbeddingTransformer(llama, layers=[2, 1], pooling=("last", "mean")),
        BestLayerClassifier(
            make_pipeline(StandardScaler(), LogisticRegression()),
            cv=2,
            parts=["rs_mean"],
        ),
    ).fit(texts, labels)
    assert pipeline[-1].layer_ in (1, 2)
    assert pipeline[-1].part_ == "rs_mean"
    assert pipeline.predict_proba(texts).shape == (12, 2)
    assert clone(pipeline).get_params()["bestlayerclassifier__cv"] == 2


def test_a_classifier_without_probabilities_has_none() -> None:
    chooser = BestLayerClassifier(LinearSVC(), cv=2)
    assert not hasattr(chooser, "predict_proba")
    assert chooser.fit(X, Y).decision_function(X).shape == (120,)


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"estimator": "lr"}, "'estimator' parameter of BestLayerClassifier"),
        ({"rule": "worst"}, "'rule' parameter of BestLayerClassifier"),
        ({"layers": [9]}, r"'layers' .* Got \[9\]"),
    ],
)
def test_bad_parameters_are_named(parameters: dict[str, object], says: str) -> None:
    given = {"estimator": LogisticRegression()} | parameters
    with pytest.raises(ValueError, match=says):
        BestLayerClassifier(**given).fit(X, Y)


def test_the_display_marks_both_layers() -> None:
    sweep = tabulate({(n, "rs"): [0.7 + n / 100, 0.8 + n / 100] for n in range(4)})
    display = LayerSweepDisplay(sweep).plot()
    assert (display.best_["layer"], display.chosen_["layer"]) == (3, 0)
    legend = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert "layer 0: first within 1 se" in legend


def test_the_default_is_a_linear_probe_on_standardized_features() -> None:
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    expected = BestLayerClassifier(probe, cv=CV).fit(X, Y)
    assert hasattr(BestLayerClassifier(), "predict_proba")
    found = BestLayerClassifier(cv=CV).fit(X, Y)
    assert_array_equal(found.predict_proba(X), expected.predict_proba(X))
