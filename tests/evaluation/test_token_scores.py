"""Each token of a text, scored by a fitted pipeline."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from plug_sklearn import HFEmbeddingTransformer, LayerAggregator, score_tokens

TEXTS = ["Gold is a metal.", "Lima is in Peru, is it?", "Gold is blue.", "Au"]
LABELS = ["yes", "no", "no", "yes"]
CONVERSATION = [
    {"role": "user", "content": "Is gold blue?"},
    {"role": "assistant", "content": "It is a metal."},
]


def fit(model: str, X: Any = TEXTS, **parameters: Any) -> Pipeline:  # noqa: ANN401
    pipeline = make_pipeline(
        HFEmbeddingTransformer(model, device="cpu", **parameters),
        LayerAggregator(),
        StandardScaler(),
        LogisticRegression(),
    )
    return pipeline.fit(X, LABELS[: len(X)])


@pytest.mark.parametrize(
    "parameters",
    [
        {"pooling": "last"},
        {"pooling": "first"},
        {"pooling": "mean"},
        {"pooling": ("max", "last", "mean"), "parts": ("rs", "attn", "mlp")},
        {"pooling": "mean", "token_filter": "non_text"},
        {"pooling": "mean", "prompt_template": "Is it? {text} Answer:"},
        {"pooling": "max", "chat_template": True},
    ],
)
def test_after_the_last_token_the_running_score_is_that_of_the_text(
    llama: str, parameters: dict[str, Any]
) -> None:
    pipeline = fit(llama, **parameters)
    scores = score_tokens(pipeline, TEXTS, running=True)
    last = scores.groupby("text")[["proba_no", "proba_yes"]].last()
    assert_allclose(last, pipeline.predict_proba(TEXTS), atol=1e-5)


@pytest.mark.parametrize("pooling", ["last", "mean", ("max", "mean")])
def test_running_scores_are_those_of_a_plain_loop_over_beginnings(
    llama: str, pooling: str | tuple[str, ...]
) -> None:
    pipeline = fit(llama, pooling=pooling)
    tokens = HFEmbeddingTransformer(llama, pooling=None, device="cpu")
    (activations,) = tokens.fit_transform(TEXTS[:1])
    pools = {"last": lambda a: a[-1], "mean": lambda a: a.mean(0)}
    pools["max"] = lambda a: a.max(0)
    names = [pooling] if isinstance(pooling, str) else pooling
    rows = [
        np.concatenate([pools[name](activations[:end]) for name in names], axis=1)
        for end in range(1, len(activations) + 1)
    ]
    expected = pipeline[1:].predict_proba(np.stack(rows))
    scores = score_tokens(pipeline, TEXTS[:1], running=True)
    assert_allclose(scores[["proba_no", "proba_yes"]], expected, atol=1e-5)


def test_a_tokens_own_evidence_is_that_of_a_text_of_this_token_alone(
    llama: str,
) -> None:
    pipeline = fit(llama, pooling=("mean", "max"))
    tokens = HFEmbeddingTransformer(llama, pooling=None, device="cpu")
    (activations,) = tokens.fit_transform(TEXTS[:1])
    twice = np.concatenate([activations, activations], axis=2)
    scores = score_tokens(pipeline, TEXTS[:1])
    expected = pipeline[1:].predict_proba(twice)
    assert_allclose(scores[["proba_no", "proba_yes"]], expected, atol=1e-6)


def test_rows_name_the_tokens_that_the_pipeline_pools(llama: str) -> None:
    pipeline = fit(llama, pooling="mean", token_filter="non_text")
    scores = score_tokens(pipeline, TEXTS)
    tokens = pipeline[0].selected_tokens(TEXTS)
    assert list(scores["token"]) == [token for own in tokens for token in own]
    assert list(scores["text"]) == [n for n, own in enumerate(tokens) for _ in own]
    assert list(scores["position"]) == [n for own in tokens for n in range(len(own))]


def test_scores_do_not_depend_on_the_other_texts(llama: str) -> None:
    pipeline = fit(llama, pooling="mean")
    together = score_tokens(pipeline, [TEXTS[1], TEXTS[0], TEXTS[1]])
    alone = score_tokens(pipeline, pd.Series([TEXTS[1]]))
    for text in (0, 2):
        own = together[together["text"] == text]
        assert_allclose(own["proba_no"], alone["proba_no"], atol=1e-6)
        assert_array_equal(own["token"], alone["token"])


def test_conversations_are_scored_where_their_roles_speak(llama: str) -> None:
    X = [CONVERSATION, [CONVERSATION[0], {"role": "assistant", "content": "Yes."}]]
    pipeline = fit(llama, X, pooling="mean", roles=("assistant",))
    scores = score_tokens(pipeline, X)
    assert "".join(scores["token"]) == "It is a metal.Yes."


def test_a_search_scores_with_its_best_pipeline(llama: str) -> None:
    search = GridSearchCV(
        fit(llama), {"logisticregression__C": [0.1, 1]}, cv=2, error_score="raise"
    )
    search.fit(TEXTS, LABELS)
    found = score_tokens(search, TEXTS)
    best = score_tokens(search.best_estimator_, TEXTS)
    pd.testing.assert_frame_equal(found, best)


def test_nothing_changes_in_the_pipeline_and_its_store(
    llama: str, tmp_path: Path
) -> None:
    pipeline = fit(llama, pooling="mean", store=str(tmp_path / "store"))
    before = {path: path.stat().st_size for path in (tmp_path / "store").iterdir()}
    score_tokens(pipeline, ["A text that is new."])
    assert {p: p.stat().st_size for p in (tmp_path / "store").iterdir()} == before
    assert pipeline[0].get_params()["pooling"] == "mean"
    assert pipeline[0].parts_ == ("rs",)


@pytest.mark.parametrize("pipeline", [None, LogisticRegression(), "probe.joblib"])
def test_what_does_not_begin_with_an_embedder_is_refused(pipeline: object) -> None:
    with pytest.raises(ValueError, match="'pipeline' parameter of score_tokens must"):
        score_tokens(pipeline, TEXTS)  # type: ignore[arg-type]  # refused


def test_tokens_need_a_probe_that_scores_them(llama: str) -> None:
    average = FunctionTransformer(lambda X: np.stack([own.mean(axis=0) for own in X]))
    pipeline = make_pipeline(
        HFEmbeddingTransformer(llama, pooling=None, device="cpu"),
        LayerAggregator(),
        average,
        LogisticRegression(),
    ).fit(TEXTS, LABELS)
    with pytest.raises(ValueError, match=r"end in a PlugTokenClassifier .* Got Logis"):
        score_tokens(pipeline, TEXTS)


def test_a_pipeline_that_is_not_fitted_is_refused(llama: str) -> None:
    with pytest.raises(NotFittedError):
        score_tokens(
            make_pipeline(HFEmbeddingTransformer(llama), LogisticRegression()),
            TEXTS,
        )


def test_no_texts_are_refused(llama: str) -> None:
    with pytest.raises(ValueError, match="at least one text"):
        score_tokens(fit(llama), [])
