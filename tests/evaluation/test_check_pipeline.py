"""Mistakes that are found before any text goes through the model."""

from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline

from plug_sklearn import (
    BestLayerClassifier,
    HFEmbeddingTransformer,
    LayerAggregator,
    PlugMLPClassifier,
    PlugTokenClassifier,
    check_pipeline,
)

TEXTS = [f"Gold has the number {n}." for n in range(40)]
LABELS = ["yes", "no"] * 20


@pytest.fixture(autouse=True)
def _refuse_to_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights of a model must not be loaded."""

    def refuse(*args: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("transformers.AutoModel.from_pretrained", refuse)


def build(model: str, *steps: BaseEstimator, **parameters: Any) -> Pipeline:  # noqa: ANN401
    return make_pipeline(HFEmbeddingTransformer(model, **parameters), *steps)


def test_a_sound_pipeline_passes_and_is_not_changed(llama: str) -> None:
    pipeline = build(llama, LayerAggregator(), PlugMLPClassifier(max_epochs=3))
    before = repr(pipeline.get_params())
    check_pipeline(pipeline, TEXTS, LABELS)
    assert repr(pipeline.get_params()) == before
    assert not hasattr(pipeline[-1], "classes_")


def test_layers_and_parts_have_the_names_of_the_model(llama: str) -> None:
    settings = {"layers": [2, 1], "pooling": ("last", "mean")}
    named = LayerAggregator(layers=[2], parts=["rs_mean"])
    check_pipeline(build(llama, named, **settings), TEXTS, LABELS)
    check_pipeline(
        build(llama, BestLayerClassifier(layers=[2], cv=2), **settings), TEXTS, LABELS
    )
    tokens = build(llama, LayerAggregator(layers=[2]), layers=[2, 1], pooling=None)
    check_pipeline(tokens, TEXTS, LABELS)
    other = build(llama, LayerAggregator(layers=[0]), **settings)
    with pytest.raises(ValueError, match=r"layers that X holds, \(2, 1\)"):
        check_pipeline(other, TEXTS, LABELS)


def test_labels_of_tokens_are_checked_against_the_tokens(llama: str) -> None:
    probe = PlugTokenClassifier(max_epochs=3, n_members=1, device="cpu")
    pipeline = build(llama, LayerAggregator(), probe, pooling=None)
    tokens = pipeline[0].fit(TEXTS).selected_tokens(TEXTS)
    labels = [[n % 2] * len(own) for n, own in enumerate(tokens)]
    check_pipeline(pipeline, TEXTS, labels)
    labels[3] = labels[3][1:]
    with pytest.raises(ValueError, match=f"{len(tokens[3])} tokens at position 3"):
        check_pipeline(pipeline, TEXTS, labels)


@pytest.mark.parametrize(
    ("steps", "parameters", "says"),
    [
        ((LayerAggregator(layers=[40]),), {}, "'layers' parameter of LayerAgg"),
        ((), {"layers": [40]}, "'layers' parameter of HFEmbed"),
        ((), {"parts": ["head"]}, "'parts' parameter"),
        ((PlugMLPClassifier(dropout=2),), {}, "'dropout' parameter of PlugMLP"),
        ((PlugMLPClassifier(max_epochs="ten"),), {}, "'max_epochs' parameter"),
        ((LayerAggregator(method="median"),), {"pooling": None}, "'method' param"),
        ((LayerAggregator(), PCA(100)), {}, "n_components=100"),
    ],
)
def test_a_step_that_would_refuse_later_refuses_now(
    llama: str, steps: tuple[BaseEstimator, ...], parameters: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        check_pipeline(build(llama, *steps, **parameters), TEXTS, LABELS)


@pytest.mark.parametrize(
    ("X", "y", "says"),
    [
        (TEXTS, LABELS[:-1], r"inconsistent numbers of samples: \[40, 39\]"),
        (TEXTS, ["yes"] * 40, "at least two classes|one class"),
        (TEXTS, np.linspace(0, 1, 40), "Unknown label type"),
        ([*TEXTS[:-1], ""], LABELS, "texts? .*39"),
        ([], [], "at least one text"),
    ],
)
def test_texts_and_labels_that_would_be_refused_are(
    llama: str, X: list[str], y: list[str] | np.ndarray, says: str
) -> None:
    pipeline = build(llama, LayerAggregator(), PlugMLPClassifier(max_epochs=2))
    with pytest.raises(ValueError, match=says):
        check_pipeline(pipeline, X, y)


def test_a_step_that_needs_many_rows_gets_all(llama: str) -> None:
    pipeline = build(llama, LayerAggregator(layers="all"), PCA(8), LogisticRegression())
    check_pipeline(pipeline, TEXTS * 8, LABELS * 8)
    wide = build(llama, LayerAggregator(), NeedsRows(300), LogisticRegression())
    check_pipeline(wide, TEXTS * 8, LABELS * 8)
    with pytest.raises(ValueError, match="321 rows"):
        check_pipeline(wide.set_params(needsrows__n=321), TEXTS * 8, LABELS * 8)


class NeedsRows(BaseEstimator):
    """Cannot be fitted on fewer than ``n`` rows."""

    def __init__(self, n: int) -> None:
        self.n = n

    def fit(self, X: np.ndarray, y: object = None) -> "NeedsRows":
        if len(X) < self.n:
            raise ValueError(f"{self.n} rows are needed")
        self.fitted_ = True
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        return X


def test_a_rare_class_is_among_the_rows_that_are_tried(llama: str) -> None:
    pipeline = build(llama, LayerAggregator(), LogisticRegression())
    check_pipeline(pipeline, TEXTS * 8, [*["yes"] * 319, "no"])


def test_each_value_of_a_grid_is_tried(llama: str) -> None:
    pipeline = build(llama, LayerAggregator(), LogisticRegression())
    grid = {"layeraggregator__layers": [[0], [1], [40]]}
    with pytest.raises(ValueError, match=r"LayerAggregator must be .* Got \[40\]"):
        check_pipeline(GridSearchCV(pipeline, grid), TEXTS, LABELS)
    grid = {"hfembeddingtransformer__layers": [[0], [40]]}
    with pytest.raises(ValueError, match=r"HFEmbeddingTransformer must .* Got \[40\]"):
        check_pipeline(GridSearchCV(pipeline, [grid]), TEXTS, LABELS)


@pytest.mark.parametrize("pooling", [("last", "mean"), None])
def test_layers_and_parts_are_those_of_the_model(llama: str, pooling: Any) -> None:  # noqa: ANN401
    own = {"layers": [1], "parts": ["mlp"], "pooling": pooling}
    part = "mlp" if pooling is None else "mlp_mean"
    for layer, accepted in ((1, True), (0, False)):
        step = LayerAggregator(layers=[layer], parts=[part])
        probe = PlugTokenClassifier(max_epochs=2)
        pipeline = build(llama, step, probe, **own)
        if accepted:
            check_pipeline(pipeline, TEXTS, LABELS)
        else:
            with pytest.raises(ValueError, match=r"'layers'.* \(1,\).* Got \[0\]"):
                check_pipeline(pipeline, TEXTS, LABELS)


def test_a_refusal_shows_only_the_beginning_of_long_texts(llama: str) -> None:
    pipeline = build(llama, LogisticRegression())
    with pytest.raises(ValueError, match="'pipeline' parameter") as caught:
        check_pipeline(TEXTS * 8, pipeline, LABELS * 8)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("pipeline", [LogisticRegression(), LayerAggregator()])
def test_what_begins_with_no_embedder_is_refused(pipeline: BaseEstimator) -> None:
    with pytest.raises(ValueError, match="'pipeline' parameter of check_pipeline"):
        check_pipeline(pipeline, TEXTS, LABELS)
