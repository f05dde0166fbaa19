"""Probes that read every token, with a classifier that goes on from token to token."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import pytest
from _written import LABELS, PROMPTS, SAMPLED, TEXTS, fit_probe, run_blocks
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.pipeline import Pipeline, make_pipeline
from transformers import AutoModelForCausalLM, AutoTokenizer

from plug_sklearn import (
    HFEmbeddingTransformer,
    LayerAggregator,
    generate_with_probes,
    stream_with_probes,
)


class Decaying(ClassifierMixin, BaseEstimator):
    """Scores each token; later tokens count more, so that order matters."""

    def fit(self, X: Sequence[NDArray[np.floating]], y: object) -> Self:
        self.classes_ = np.array([0, 1])
        rng = np.random.default_rng(0)
        self.weights_ = rng.normal(size=X[0].shape[1])
        return self

    def predict_proba(self, X: Sequence[NDArray[np.floating]]) -> NDArray[np.floating]:
        found = []
        for tokens in X:
            stream = self.start_stream(1)
            for token in tokens:
                last = stream.update(token[None], [0])
            found.append(last[0])
        return np.array(found)

    def start_stream(self, n_texts: int) -> "DecayingStream":
        return DecayingStream(self.weights_, n_texts)


class DecayingStream:
    def __init__(self, weights: NDArray[np.floating], n_texts: int) -> None:
        self.weights = weights
        self.sums = np.zeros(n_texts)

    def update(
        self, token_features: NDArray[np.floating], texts: Sequence[int]
    ) -> NDArray[np.floating]:
        new = token_features @ self.weights
        self.sums[texts] = 0.9 * self.sums[texts] + 0.1 * new
        positive = expit(self.sums[texts])
        return np.stack([1 - positive, positive], axis=1)


def fit_tokens(model: str, **parameters: Any) -> Pipeline:  # noqa: ANN401 - the embedder's
    return make_pipeline(
        HFEmbeddingTransformer(
            model, layers=[2, 0], pooling=None, device="cpu", **parameters
        ),
        LayerAggregator(),
        Decaying(),
    ).fit(TEXTS, LABELS)


def test_probabilities_after_each_token_are_those_of_all_tokens_so_far(
    writer: str,
) -> None:
    probe = fit_tokens(writer)
    tokenizer = AutoTokenizer.from_pretrained(writer)
    answers = generate_with_probes(
        PROMPTS,
        {"tokens": probe, "last": fit_probe(writer)},
        max_new_tokens=6,
        generation_kwargs=SAMPLED,
        random_state=0,
    )
    model = AutoModelForCausalLM.from_pretrained(writer).eval()
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        expected = probe.predict_proba([prompt])[0]
        assert_allclose(answer.prompt_probabilities["tokens"], expected, atol=1e-4)
        before = tokenizer(prompt)["input_ids"]
        for count, found in enumerate(answer.probabilities["tokens"], 1):
            ids = [*before, *answer.token_ids[:count]]
            blocks = run_blocks(model, ids, range(3))
            tokens = np.concatenate([blocks[n] for n in probe[0].layers_], axis=1)
            assert_allclose(found, probe[-1].predict_proba([tokens])[0], atol=1e-4)


def test_streams_and_stops_see_the_same(writer: str) -> None:
    probe = fit_tokens(writer)
    (answer,) = generate_with_probes(PROMPTS[:1], probe, max_new_tokens=8)
    seen = answer.probabilities["probe"][:, 1]
    streamed = [
        token.probabilities["probe"][1]
        for token in stream_with_probes(PROMPTS[:1], probe, max_new_tokens=8)
    ]
    assert_allclose(streamed, seen, atol=1e-9)
    (stopped,) = generate_with_probes(
        PROMPTS[:1], probe, max_new_tokens=8, stop={"probe": float(seen.max())}
    )
    assert len(stopped.token_ids) == seen.argmax() + 1


def test_an_answer_that_is_not_pooled_changes_nothing(writer: str) -> None:
    asked = [{"role": "user", "content": "Gold"}]
    said = [[*asked, {"role": "assistant", "content": "1"}]]
    probe = fit_tokens(writer, roles=("user",))
    probe[0].fit(said)
    (answer,) = generate_with_probes([asked], probe, max_new_tokens=4)
    expected = np.tile(answer.prompt_probabilities["probe"], (4, 1))
    assert_allclose(answer.probabilities["probe"], expected)
    assert_allclose(expected[0], probe.predict_proba([asked])[0], atol=1e-4)


def test_what_cannot_go_on_from_token_to_token_is_refused(writer: str) -> None:
    class Whole(Decaying):
        start_stream = property()  # type: ignore[assignment]  # there is none

    probe = make_pipeline(
        HFEmbeddingTransformer(writer, pooling=None, device="cpu"),
        LayerAggregator(),
        Whole(),
    ).fit(TEXTS, LABELS)
    with pytest.raises(ValueError, match=r"'pooling' parameter .* Got Whole instead"):
        generate_with_probes(PROMPTS, probe, max_new_tokens=2)
    probe = fit_tokens(writer, token_filter="special")
    with pytest.raises(ValueError, match=r"'token_filter' parameter .* must be None"):
        generate_with_probes(PROMPTS, probe, max_new_tokens=2)
