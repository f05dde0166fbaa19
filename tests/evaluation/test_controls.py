from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from _drawn import find_overlapping_texts
from matplotlib.figure import Figure
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from plug_sklearn import (
    ControlsDisplay,
    HFEmbeddingTransformer,
    LayerAggregator,
    PlugMLPClassifier,
    probe_controls,
)
from plug_sklearn.embedding import with_random_weights

CITIES = ["Paris", "Lima", "Rome", "Oslo", "Cairo", "Delhi"]
COUNTRIES = ["France", "Peru", "Italy", "Norway", "Egypt", "India"]
TEXTS = [f"{city} is in {country}." for city in CITIES for country in COUNTRIES]
Y = np.array([int(city == country) for city in range(6) for country in range(6)])
Y[::2] = 1 - Y[::2]
GROUPS = np.arange(36) // 6
CV = GroupKFold(3)
SETTING: dict[str, Any] = {"cv": CV, "groups": GROUPS, "scoring": "accuracy"}


def make_probe(model: str, **parameters: object) -> Pipeline:
    return make_pipeline(
        HFEmbeddingTransformer(model, device="cpu", **parameters),
        LayerAggregator(),
        StandardScaler(),
        LogisticRegression(C=0.1),
    )


def test_each_control_is_what_one_would_compute_by_hand(llama: str) -> None:
    probe = make_probe(llama, layers=[-1])
    table = probe_controls(probe, TEXTS, Y, random_state=5, **SETTING)
    found = {name: rows["accuracy"] for name, rows in table.groupby("control")}
    read = {
        layer: HFEmbeddingTransformer(llama, device="cpu", layers=[layer])
        for layer in (-1, 0)
    }
    last, first = (one.fit_transform(TEXTS) for one in read.values())
    weights = np.random.RandomState(5).randint(2**31, size=2)[1]
    with with_random_weights(read[-1], weights) as untrained:
        random = untrained.fit_transform(TEXTS)
    classifier = LogisticRegression(max_iter=1000)
    lengths = [[np.log1p(len(t)), np.log1p(len(t.split()))] for t in TEXTS]
    by_hand: dict[str, tuple[Any, Any, np.ndarray]] = {
        "probe": (probe[1:], last, Y),
        "majority": (DummyClassifier(), last, Y),
        "text_length": (make_pipeline(StandardScaler(), classifier), lengths, Y),
        "bag_of_words": (make_pipeline(CountVectorizer(), classifier), TEXTS, Y),
        "tf_idf": (make_pipeline(TfidfVectorizer(), classifier), TEXTS, Y),
        "first_layer": (probe[1:], first, Y),
        "random_weights": (probe[1:], random, Y),
    }
    names = list(dict.fromkeys(table["control"]))
    assert [name for name in names if name != "shuffled_labels"] == list(by_hand)
    # The folds are those of the true labels, whatever the control.
    folds = list(CV.split(TEXTS, Y, GROUPS))
    for name, (estimator, X, y) in by_hand.items():
        expected = cross_val_score(estimator, X, y, cv=folds, scoring="accuracy")
        assert found[name].tolist() == pytest.approx(expected), name
    assert table["fold"].tolist() == [0, 1, 2] * 8


def test_each_text_goes_through_each_model_once(
    llama: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[object, int]] = []
    transform = HFEmbeddingTransformer.transform

    def count(self: HFEmbeddingTransformer, X: Sequence[str]) -> np.ndarray:
        read.append((self.model_name, len(X)))
        return transform(self, X)

    monkeypatch.setattr(HFEmbeddingTransformer, "transform", count)
    probe_controls(make_probe(llama, layers=[1]), TEXTS, Y, **SETTING)
    (own, n_own), (untrained, n_untrained) = read
    assert own == llama
    assert str(untrained).startswith("random weights")
    assert n_own == n_untrained == len(TEXTS)


def test_the_first_layer_stands_for_all_layers_that_the_probe_reads(llama: str) -> None:
    everything = HFEmbeddingTransformer(llama, device="cpu").fit_transform(TEXTS)
    table = probe_controls(
        make_probe(llama, layers=[2, 0]), TEXTS, Y, controls=["first_layer"], **SETTING
    )
    twice = everything[:, [0, 0]]
    expected = cross_val_score(make_probe(llama)[1:], twice, Y, cv=CV, groups=GROUPS)
    found = table.loc[table["control"] == "first_layer", "accuracy"]
    assert found.tolist() == pytest.approx(expected)


def test_conversations_and_token_activations_have_all_controls(llama: str) -> None:
    said = [[{"role": "user", "content": text}] for text in TEXTS]

    class MeanOfTokens(LogisticRegression):
        def fit(self, X: np.ndarray, y: np.ndarray) -> "MeanOfTokens":
            return super().fit(self.pool(X), y)

        def predict(self, X: np.ndarray) -> np.ndarray:
            return super().predict(self.pool(X))

        @staticmethod
        def pool(X: np.ndarray) -> np.ndarray:
            return np.stack([item.mean(axis=0).ravel() for item in X])

    probe = make_pipeline(
        HFEmbeddingTransformer(llama, device="cpu", layers=[1], pooling=None),
        MeanOfTokens(),
    )
    table = probe_controls(probe, said, Y, random_state=0, **SETTING)
    assert len(table) == 8 * 3
    assert table["accuracy"].notna().all()
    words = probe_controls(
        make_probe(llama), TEXTS, Y, controls=("bag_of_words",), **SETTING
    )
    of_words = [
        one.loc[one["control"] == "bag_of_words", "accuracy"].tolist()
        for one in (table, words)
    ]
    assert of_words[0] == of_words[1]


def test_seed_repeats_and_choice_of_controls_changes_no_row(llama: str) -> None:
    probe = make_probe(llama, layers=[1])
    all_of_them = probe_controls(probe, TEXTS, Y, random_state=1, **SETTING)
    some = probe_controls(
        probe, TEXTS, Y, random_state=1, controls=["random_weights"], **SETTING
    )
    rows = all_of_them["control"].isin(["probe", "random_weights"])
    expected = all_of_them.loc[rows, ["control", "fold", "accuracy"]]
    assert some[expected.columns].values.tolist() == expected.values.tolist()


def test_activations_have_the_controls_that_need_no_text() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 4, 1, 8)), np.arange(60) % 2
    X[:, 2] += y[:, None, None]
    probe = make_pipeline(LayerAggregator(layers=[2]), LogisticRegression())
    table = probe_controls(probe, X, y, cv=3, scoring=["roc_auc", "accuracy"])
    means = table.groupby("control")[["roc_auc", "accuracy"]].mean()
    assert set(means.index) == {"probe", "majority", "shuffled_labels", "first_layer"}
    assert means.loc["probe", "roc_auc"] > 0.9
    assert means.loc["majority", "roc_auc"] == 0.5
    at_first = make_pipeline(LayerAggregator(layers=[0]), LogisticRegression())
    expected = cross_val_score(at_first, X, y, cv=3, scoring="roc_auc").mean()
    assert means.loc["first_layer", "roc_auc"] == pytest.approx(expected)


def test_groups_reach_the_fit_of_a_probe_that_takes_them() -> None:
    seen = []

    class Grouped(LogisticRegression):
        def fit(
            self, X: np.ndarray, y: np.ndarray, groups: Sequence[int] = ()
        ) -> "Grouped":
            seen.append(len(groups))
            return super().fit(X.reshape(len(X), -1), y)

        def decision_function(self, X: np.ndarray) -> np.ndarray:
            return super().decision_function(X.reshape(len(X), -1))

    X = np.random.default_rng(0).normal(size=(36, 2, 1, 4))
    probe_controls(Grouped(), X, Y, **SETTING)
    assert seen == [24] * 9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"controls": "majorty"}, "'controls' parameter of probe_controls must be"),
        ({"controls": []}, "'controls' parameter of probe_controls must be"),
        ({"controls": ["majority", "bow"]}, r"Got \['majority', 'bow'\] instead"),
        ({"scoring": "roc_acu"}, "roc_acu"),
        ({"y": Y[:-1]}, "'y' parameter.*each of the 36 samples"),
        ({"y": np.zeros(36)}, "two classes or more. Got one class"),
        ({"y": Y + 0.5 * np.arange(36)}, "two classes or more. Got continuous"),
        ({"pipeline": make_pipeline(LayerAggregator(), Ridge())}, "in a classifier"),
        ({"pipeline": make_pipeline(HFEmbeddingTransformer())}, "after its embedder"),
        (
            {"pipeline": PlugMLPClassifier()},
            r"'X' parameter of probe_controls must be activations .* Got <U",
        ),
        (
            {"pipeline": PlugMLPClassifier(), "controls": ["tf_idf"]},
            "must be among .* for activations",
        ),
    ],
)
def test_bad_input_is_refused_before_texts_are_read(
    arguments: dict[str, Any],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    refuse_reading: Callable[..., None],
) -> None:
    monkeypatch.setattr(HFEmbeddingTransformer, "transform", refuse_reading)
    pipeline = make_pipeline(HFEmbeddingTransformer(), LogisticRegression())
    given: dict[str, Any] = {"pipeline": pipeline, "X": TEXTS, "y": Y, **arguments}
    with pytest.raises(ValueError, match=message):
        probe_controls(**given)


@pytest.fixture
def refuse_reading() -> Callable[..., None]:
    def refuse(self: object, X: object) -> None:
        raise AssertionError("texts were read")

    return refuse


def test_a_control_that_cannot_be_fitted_costs_no_other(llama: str) -> None:
    texts = ["!", "?!", "...", "--"] * 9
    y = np.arange(36) % 2
    controls = ["bag_of_words", "majority"]
    with pytest.warns(
        UserWarning, match="'bag_of_words' cannot be fitted .*vocabulary"
    ):
        table = probe_controls(
            make_probe(llama, layers=[0]), texts, y, cv=2, controls=controls
        )
    is_words = table["control"] == "bag_of_words"
    assert table.loc[is_words, "score"].isna().all()
    assert table.loc[~is_words, "score"].notna().all()
    assert table.loc[is_words, "fold"].tolist() == [0, 1]


def test_estimators_of_other_kinds_are_refused() -> None:
    with pytest.raises(TypeError, match="'pipeline' parameter of probe_controls must"):
        probe_controls("probe", TEXTS, Y)  # type: ignore[arg-type]  # what is tested


NAMES = (
    "probe",
    "majority",
    "text_length",
    "bag_of_words",
    "tf_idf",
    "shuffled_labels",
    "first_layer",
    "random_weights",
)
TABLE = pd.DataFrame(
    [
        (control, fold, 0.9 - 0.05 * number + 0.02 * fold, -0.5 - 0.1 * number, 0.1)
        for number, control in enumerate(NAMES)
        for fold in range(3)
    ],
    columns=["control", "fold", "roc_auc", "neg_log_loss", "fit_time"],
)


def test_bars_are_means_and_points_are_folds() -> None:
    display = ControlsDisplay(TABLE).plot()
    widths = [bar.get_width() for bar in display.bars_]
    expected = [0.92 - 0.05 * number for number in range(8)]
    assert widths == pytest.approx(expected)
    assert display.points_.get_xdata().tolist() == TABLE["roc_auc"].tolist()
    labels = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert labels[:5] == [
        "Probe",
        "Majority",
        "Text length",
        "Bag of words",
        "TF-IDF",
    ]
    assert display.ax_.get_xlabel() == "ROC AUC (bar: mean; points: 3 folds)"
    assert find_overlapping_texts(display.figure_) == []


def test_summary_tells_the_lead_of_the_probe_and_selectivity() -> None:
    display = ControlsDisplay(TABLE, score="neg_log_loss")
    means = TABLE.groupby("control")["neg_log_loss"].mean()
    for control, row in display.summary_.iterrows():
        assert row["mean"] == pytest.approx(means[control])
        assert row["lead"] == pytest.approx(means["probe"] - means[control])
    assert display.selectivity_ == pytest.approx(0.5)
    without = TABLE[TABLE["control"] != "shuffled_labels"]
    assert ControlsDisplay(without).selectivity_ is None


def test_from_estimator_draws_where_it_is_told(figure: Figure) -> None:
    X = np.random.default_rng(0).normal(size=(40, 2, 1, 4))
    probe = make_pipeline(LayerAggregator(layers=[1]), LogisticRegression())
    axes = figure.subplots()
    display = ControlsDisplay.from_estimator(
        probe, X, np.arange(40) % 2, controls=["majority"], ax=axes
    )
    assert display.ax_ is axes
    assert len(display.bars_) == 2


def test_other_tables_are_refused() -> None:
    with pytest.raises(ValueError, match="as probe_controls returns it"):
        ControlsDisplay(TABLE.drop(columns="control"))
    with pytest.raises(ValueError, match="must have rows of the control 'probe'"):
        ControlsDisplay(TABLE[TABLE["control"] != "probe"])
    with pytest.raises(ValueError, match="'score' parameter of ControlsDisplay"):
        ControlsDisplay(TABLE, score="f1")


@pytest.mark.usefixtures("no_matplotlib")
def test_missing_matplotlib_is_told_before_anything_is_computed() -> None:
    with pytest.raises(ImportError, match=r"its extra \[plots\]"):
        ControlsDisplay.from_estimator(LogisticRegression(), [[[1.0]]], [0])
