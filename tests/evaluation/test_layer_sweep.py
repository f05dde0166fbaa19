import numpy as np
import pandas as pd
import pytest
from _readable import GROUPS, X, Y
from numpy.testing import assert_allclose
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold, cross_validate
from sklearn.pipeline import make_pipeline

from plug_sklearn import (
    HFEmbeddingTransformer,
    LayerAggregator,
    PlugMLPClassifier,
    layer_sweep,
)

PROBE = LogisticRegression()
TEXTS = [f"The number {number} is odd." for number in range(24)]
ODD = np.arange(24) % 2


class CountingEmbedder(TransformerMixin, BaseEstimator):
    """Numbers two layers 5 and 9; counts the texts that it reads."""

    read: list[int] = []  # noqa: RUF012 - clones are to share it

    def fit(self, X: list[str], y: object = None) -> "CountingEmbedder":
        self.layers_, self.parts_ = (5, 9), ("mlp",)
        return self

    def transform(self, X: list[str]) -> np.ndarray:
        self.read.append(len(X))
        return np.random.default_rng(0).normal(size=(len(X), 2, 1, 4))


def test_a_row_is_what_cross_validation_of_the_pipeline_scores() -> None:
    scoring = ["roc_auc", "accuracy"]
    sweep = layer_sweep(PROBE, X, Y, cv=4, scoring=scoring)
    for (layer, part), rows in sweep.groupby(["layer", "part"]):
        pipeline = make_pipeline(LayerAggregator(layers=[layer], parts=[part]), PROBE)
        expected = cross_validate(pipeline, X, Y, cv=4, scoring=scoring)
        for name in scoring:
            assert_allclose(rows[name], expected[f"test_{name}"])


def test_there_is_a_row_for_each_layer_part_and_fold_in_this_order() -> None:
    sweep = layer_sweep(PROBE, X, Y, cv=2)
    expected = [(la, p, f) for la in range(3) for p in range(2) for f in range(2)]
    assert [*zip(sweep["layer"], sweep["part"], sweep["fold"], strict=True)] == expected
    assert list(sweep.columns) == [
        *("layer", "part", "fold", "score", "score_chance", "fit_time", "score_time")
    ]


def test_the_layer_that_holds_the_label_scores_best_and_others_like_chance() -> None:
    sweep = layer_sweep(PROBE, X, Y, scoring="roc_auc")
    means = sweep.groupby(["layer", "part"])["roc_auc"].mean()
    assert means.idxmax() == (1, 0)
    assert means[1, 0] > 0.9
    assert (means.drop((1, 0)) < 0.7).all()


def test_all_layers_are_scored_on_the_same_folds_even_if_those_are_random() -> None:
    same = np.repeat(X[:, :1], 3, axis=1)
    sweep = layer_sweep(PROBE, same, Y, cv=StratifiedKFold(3, shuffle=True))
    assert (sweep.groupby(["part", "fold"])["score"].nunique() == 1).all()


def test_chosen_layers_and_parts_keep_their_numbers() -> None:
    three_parts = np.repeat(X[:, :, :1], 3, axis=2)
    sweep = layer_sweep(PROBE, three_parts, Y, layers=[2, -2], parts=["mlp"], cv=2)
    assert sweep["layer"].unique().tolist() == [2, 1]
    assert sweep["part"].unique().tolist() == ["mlp"]


def test_three_axes_are_samples_layers_and_units() -> None:
    flat = layer_sweep(PROBE, X[:, :, 0], Y, cv=2)
    full = layer_sweep(PROBE, X[:, :, :1], Y, cv=2)
    assert_allclose(flat["score"], full["score"])


def test_texts_are_read_once_and_layers_go_by_the_models_numbers() -> None:
    CountingEmbedder.read.clear()
    sweep = layer_sweep(PROBE, TEXTS, ODD, embedder=CountingEmbedder(), cv=3)
    assert CountingEmbedder.read == [24]
    assert sweep["layer"].unique().tolist() == [5, 9]
    assert sweep["part"].unique().tolist() == ["mlp"]


def test_texts_go_through_a_language_model(llama: str) -> None:
    embedder = HFEmbeddingTransformer(
        llama, layers=[0, -1], parts=("mlp", "rs"), device="cpu"
    )
    texts = pd.Series(TEXTS)
    sweep = layer_sweep(PROBE, texts, ODD, embedder=embedder, cv=2)
    expected = layer_sweep(PROBE, embedder.fit_transform(texts), ODD, cv=2)
    assert_allclose(sweep["score"], expected["score"])
    assert sweep["layer"].unique().tolist() == [0, 2]
    assert sweep["part"].unique().tolist() == ["mlp", "rs"]


def test_workers_change_nothing() -> None:
    one = layer_sweep(PROBE, X, Y, cv=2, scoring="roc_auc")
    two = layer_sweep(PROBE, X, Y, cv=2, scoring="roc_auc", n_jobs=2)
    times = ["fit_time", "score_time"]
    pd.testing.assert_frame_equal(one.drop(columns=times), two.drop(columns=times))


def test_groups_split_the_folds_and_reach_the_probe() -> None:
    class Recorder(PlugMLPClassifier):
        seen: list[np.ndarray] = []  # noqa: RUF012 - clones are to share it

        def fit(
            self, X: np.ndarray, y: np.ndarray, groups: object = None
        ) -> "Recorder":
            self.seen.append(groups)
            return super().fit(X, y, groups=groups)

    probe = Recorder(max_epochs=1, random_state=0, device="cpu")
    layer_sweep(probe, X, Y, layers=[1], parts=[0], cv=GroupKFold(3), groups=GROUPS)
    expected = [GROUPS[train] for train, _ in GroupKFold(3).split(X, Y, GROUPS)]
    for given, groups in zip(Recorder.seen, expected, strict=True):
        assert (np.asarray(given) == groups).all()


def test_fit_arguments_are_split_with_the_rows() -> None:
    params = {"sample_weight": np.linspace(0.1, 2, len(Y))}
    sweep = layer_sweep(
        PROBE,
        X,
        Y,
        layers=[1],
        parts=[0],
        cv=KFold(2),
        scoring="neg_log_loss",
        params=params,
    )
    expected = cross_validate(
        PROBE, X[:, 1, 0], Y, cv=KFold(2), scoring="neg_log_loss", params=params
    )
    assert_allclose(sweep["neg_log_loss"], expected["test_score"])


def weigh(estimator: object, X: np.ndarray, y: np.ndarray) -> dict[str, float]:
    return {"weight": np.abs(estimator.coef_).mean()}


def test_a_score_that_a_constant_has_not_has_no_chance_level() -> None:
    sweep = layer_sweep(PROBE, X, Y, cv=2, scoring=weigh)
    assert (sweep["weight"] > 0).all()
    assert sweep["weight_chance"].isna().all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"y": ODD[:5]},
        {"cv": GroupKFold(3)},  # without groups
        {"cv": 25},
        {"scoring": "rocauc"},
    ],
)
def test_no_text_is_read_where_the_rest_is_wrong(wrong: dict[str, object]) -> None:
    CountingEmbedder.read.clear()
    given = {"estimator": PROBE, "X": TEXTS, "y": ODD, "embedder": CountingEmbedder()}
    with pytest.raises(ValueError):
        layer_sweep(**{**given, **wrong})
    assert CountingEmbedder.read == []


def test_token_activations_are_refused_before_they_are_read() -> None:
    CountingEmbedder.read.clear()
    embedder = CountingEmbedder()
    embedder.pooling = None
    with pytest.raises(ValueError, match=r"every token.*'embedder' a 'pooling'"):
        layer_sweep(PROBE, TEXTS, ODD, embedder=embedder)
    assert CountingEmbedder.read == []
    tokens = np.empty(len(ODD), dtype=object)
    tokens[:] = [np.ones((2, 3, 1, 4))] * len(ODD)
    with pytest.raises(ValueError, match=r"every token.*'embedder' a 'pooling'"):
        layer_sweep(PROBE, tokens, ODD)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": [7]}, r"'layers' parameter .* positions in \[0, 3\)"),
        ({"parts": ["rs"]}, r"'parts' parameter"),
        ({"y": Y[:5]}, "'y' parameter.* for each of the 120 rows"),
        ({"X": X[:, :, :, None]}, "3 or 4 axes"),
        ({"X": X[:, 0, 0]}, r"'X' parameter of layer_sweep .*float32 of shape"),
        ({"X": ["Lima"] * len(Y)}, r"texts with an 'embedder'\. Got <U4"),
        ({"X": [], "y": []}, r"3 or 4 axes.*shape \(0,\)"),
    ],
)
def test_bad_input_is_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layer_sweep(**{"estimator": PROBE, "X": X, "y": Y, **arguments})


def test_a_bar_changes_no_score(capsys: pytest.CaptureFixture[str]) -> None:
    times = ["fit_time", "score_time"]
    quiet = layer_sweep(PROBE, X, Y, cv=2).drop(columns=times)
    shown = layer_sweep(PROBE, X, Y, cv=2, verbose=True).drop(columns=times)
    pd.testing.assert_frame_equal(shown, quiet)
    assert capsys.readouterr() == ("", "")
