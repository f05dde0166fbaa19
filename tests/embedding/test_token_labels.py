from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plug_sklearn import HFEmbeddingTransformer
from plug_sklearn.embedding import token_labels

TEXTS = ["It is in Rome, or in Paris.", "Naïve Rome", "  Rome  "]
SPANS: list[list[tuple[int, ...]]] = [[(9, 13), (21, 26, 2)], [(6, 10)], [(2, 6)]]
SETTINGS: list[dict[str, Any]] = [
    {},
    {"special_tokens": "literal"},
    {"prompt_template": "Say: {text} ok?"},
    {"prompt_template": "Say: {text} ok?", "special_tokens": "literal"},
    {"prompt_template": "{text} or {text}!", "pool_over": "prompt"},
    {"token_filter": "non_text"},
]


def embedder_of(model: str, **parameters: object) -> HFEmbeddingTransformer:
    return HFEmbeddingTransformer(
        model, layers=0, pooling=None, device="cpu", **parameters
    ).fit(TEXTS)


@pytest.mark.parametrize("parameters", SETTINGS)
def test_labelled_tokens_spell_the_span(
    llama: str, parameters: dict[str, object]
) -> None:
    embedder = embedder_of(llama, **parameters)
    labels = token_labels(embedder, TEXTS, SPANS)
    tokens = embedder.selected_tokens(TEXTS)
    n_slots = str(parameters.get("prompt_template", "{text}")).count("{text}")
    for own, shown, text, spans in zip(labels, tokens, TEXTS, SPANS, strict=True):
        assert len(own) == len(shown)
        for start, end, *label in spans:
            chosen = own == (label[0] if label else 1)
            spelled = "".join(np.array(shown)[chosen]).replace(" ", "")
            assert spelled == text[start:end] * n_slots


def test_tokens_of_a_template_have_no_label(llama: str) -> None:
    embedder = embedder_of(llama, prompt_template="Say: {text}", pool_over="prompt")
    (labels,) = token_labels(embedder, ["Rome"], [[]])
    (tokens,) = embedder.selected_tokens(["Rome"])
    own = "".join(np.array(tokens)[labels == 0]).strip()
    assert own == "Rome"
    assert (labels[: len(tokens) - len(labels[labels == 0])] == -1).all()


@pytest.mark.parametrize("side", ["left", "right"])
def test_truncated_texts_keep_the_labels_of_what_stays(llama: str, side: str) -> None:
    embedder = embedder_of(llama, max_length=4, truncation_side=side)
    text = TEXTS[0]
    with pytest.warns(UserWarning, match="cut"):
        (tokens,) = embedder.selected_tokens([text])
    stays = "".join(tokens).strip()
    start = text.index(stays)
    end = start + len(stays)
    assert start == 0 if side == "right" else end == len(text)
    (labels,) = token_labels(embedder, [text], [[(start, end)]])
    assert labels.all()
    rest = (end, len(text)) if side == "right" else (0, start)
    (others,) = token_labels(embedder, [text], [[rest]])
    assert not others.any()


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_tokens_are_labelled_where_they_share_a_character(
    llama: str, data: st.DataObject
) -> None:
    text = data.draw(st.text(st.sampled_from("ab é.\n"), min_size=1, max_size=12))
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    embedder = embedder_of(llama)
    (labels,) = token_labels(embedder, [text], [[(start, end)]])
    (tokens,) = embedder.selected_tokens([text])
    assert len(labels) == len(tokens)
    assert labels.any() or not text[start:end].strip()


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([[(0, 99)]], "0 <= start < end <= 4 for the text at position 0"),
        ([[(2, 2)]], "0 <= start < end"),
        ([[(0, "a")]], "of integers. Got"),
        ([[3]], "of integers. Got 3"),
        ([[], []], "1 lists. Got 2"),
        (None, "1 lists. Got None"),
        ([None], "a list of spans for each text. Got None for the text at position 0"),
    ],
)
def test_wrong_spans_are_refused(
    llama: str, spans: list[list[Any]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        token_labels(embedder_of(llama), ["Rome"], spans)


def test_conversations_and_other_estimators_are_refused(llama: str) -> None:
    conversation = [{"role": "user", "content": "Rome"}]
    embedder = embedder_of(llama)
    with pytest.raises(ValueError, match="'embedder' given to token_labels"):
        token_labels("llama", ["Rome"], [[]])
    with pytest.raises(ValueError, match=r"must be strings\. Got a list at position 0"):
        token_labels(embedder, [conversation], [[]])
