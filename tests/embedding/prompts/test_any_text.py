"""Text that no one expects, from strangers who do not mean well."""

import sys
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from plug_sklearn import HFEmbeddingTransformer
from plug_sklearn.embedding.prompts import PromptOptions, PromptReader, TokenizedPrompts

Build = Callable[..., PreTrainedTokenizerFast]
SPELLINGS = ("<|im_start|>", "<|im_end|>", "<pad>", "<cls>", "<sep>", "<think>")
ODD = (
    *(spelling[:cut] for spelling in SPELLINGS for cut in (1, 2, -1)),
    *(spelling.upper() for spelling in SPELLINGS),
    "\0",
    "\u202e",  # turns the direction of writing
    "\u2066\u2069",
    "\u200b",  # has no width
    "e" + "\u0301" * 9,  # one letter, nine accents
    "👩‍👩‍👧",
    "\ufffd",
    "\uffff",
    "\ue000content\ue001",
    "{text}",
    "{{ messages }}",
    "\r\n\t ",
    chr(sys.maxunicode),
)
TEXTS = (
    st.lists(
        st.one_of(st.sampled_from(SPELLINGS + ODD), st.text(max_size=5)),
        min_size=1,
        max_size=8,
    )
    .map("".join)
    .filter(bool)
)
OPTIONS = st.builds(
    PromptOptions,
    prompt_template=st.sampled_from([None, "<think>{text}<sep>", "{text}: {text}"]),
    chat_template=st.booleans(),
    special_tokens=st.sampled_from(["parse", "literal"]),
    token_filter=st.sampled_from([None, "special", "non_text"]),
    eos_token=st.sampled_from([None, "<|im_end|>"]),
    truncation_side=st.sampled_from(["left", "right"]),
)
LIMITS = st.sampled_from([None, 40])
LENGTH = 100_000


@pytest.fixture(scope="module", params=[False, True])
def tokenizer(
    byte_tokenizer: Build, request: pytest.FixtureRequest
) -> PreTrainedTokenizerFast:
    return byte_tokenizer(wraps=request.param)


def list_prompts(prompts: TokenizedPrompts) -> list[tuple[list[int], list[int]]]:
    return [
        (prompts.ids_of(number).tolist(), prompts.kept_of(number).tolist())
        for number in range(len(prompts))
    ]


def assume_tokens(texts: list[str], options: PromptOptions) -> None:
    """Leave out blank texts, of which the chat template may strip all."""
    assume(not options.chat_template or all(text.strip() for text in texts))


@given(st.lists(TEXTS, min_size=1, max_size=6), OPTIONS, LIMITS)
def test_texts_together_are_read_as_one_by_one(
    tokenizer: PreTrainedTokenizerFast,
    texts: list[str],
    options: PromptOptions,
    limit: int | None,
) -> None:
    assume_tokens(texts, options)
    reader = PromptReader(tokenizer, options, limit)
    alone = [list_prompts(reader.read([text]))[0] for text in texts]
    assert list_prompts(reader.read(texts)) == alone
    assert all(len(ids) <= (limit or np.inf) for ids, _ in alone)
    assert all(kept for _, kept in alone)


@given(TEXTS, OPTIONS, LIMITS)
def test_literal_text_adds_no_special_token_to_the_template_s(
    tokenizer: PreTrainedTokenizerFast,
    text: str,
    options: PromptOptions,
    limit: int | None,
) -> None:
    assume_tokens([text], options)
    options = PromptOptions(**{**vars(options), "special_tokens": "literal"})
    reader = PromptReader(tokenizer, options, limit)
    (prompt,) = list_prompts(reader.read([text]))
    special = set(reader.special.steering.tolist())
    fixed_ids = reader.encoder.find_literal_ids()
    in_template = [i for ids in fixed_ids for i in ids if i in special]
    assert [token for token in prompt[0] if token in special] == in_template


@given(TEXTS)
def test_literal_text_is_all_there(
    tokenizer: PreTrainedTokenizerFast, text: str
) -> None:
    reader = PromptReader(tokenizer, PromptOptions(special_tokens="literal"), None)
    ids = reader.read([text]).ids
    assert tokenizer.decode(ids[~np.isin(ids, reader.special.steering)]) == text


@pytest.mark.parametrize("special_tokens", ["parse", "literal"])
@pytest.mark.parametrize(
    "unit", [*SPELLINGS[:2], "<|im_", "<<", "a", "\n.", "\0", "\u202e", "🙂", "a <sep>"]
)
def test_long_text_takes_few_calls_and_keeps_to_the_limit(
    byte_tokenizer: Build,
    monkeypatch: pytest.MonkeyPatch,
    special_tokens: str,
    unit: str,
) -> None:
    calls = []
    call = PreTrainedTokenizerFast.__call__

    def count(self: PreTrainedTokenizerFast, *args: object, **how: object) -> object:
        calls.append(args)
        return call(self, *args, **how)

    monkeypatch.setattr(PreTrainedTokenizerFast, "__call__", count)
    text = (unit * LENGTH)[:LENGTH]
    options = PromptOptions(special_tokens=special_tokens, chat_template=True)
    prompts = PromptReader(byte_tokenizer(), options, 200).read([text])
    assert 180 < len(prompts.ids) <= 200
    assert len(calls) < 60


def test_overlapping_spellings_take_few_calls(
    byte_tokenizer: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["[[A]", "A]]"])
    calls = []
    call = PreTrainedTokenizerFast.__call__
    monkeypatch.setattr(
        PreTrainedTokenizerFast,
        "__call__",
        lambda self, *args, **how: calls.append(args) or call(self, *args, **how),
    )
    reader = PromptReader(tokenizer, PromptOptions(special_tokens="literal"), None)
    text = "[[A]]" * (LENGTH // 5)
    ids = reader.read([text]).ids
    assert reader.special.count(ids) == 0
    assert tokenizer.decode(ids) == text
    assert len(calls) < 60


@pytest.mark.parametrize("text", ["\ud800", "gold \udfff", "\udcff" * 3, "🙂\ud83d"])
def test_lone_surrogate_is_refused_by_its_position(llama: str, text: str) -> None:
    embedder = HFEmbeddingTransformer(llama, device="cpu").fit(["gold"])
    with pytest.raises(ValueError, match=r"lone surrogate .* at position 1 instead"):
        embedder.transform(["gold", text])


def transform_quietly(
    embedder: HFEmbeddingTransformer, texts: list[str]
) -> NDArray[np.float32]:
    """Transform; that texts were cut or have no token left is not what is asked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return embedder.transform(texts)


@settings(max_examples=20)
@given(st.lists(TEXTS, min_size=1, max_size=6), OPTIONS)
def test_activations_together_are_as_one_by_one(
    llama: str, texts: list[str], options: PromptOptions
) -> None:
    embedder = HFEmbeddingTransformer(llama, device="cpu", pooling="mean")
    embedder.set_params(**{**vars(options), "max_length": 40}).fit(texts)
    found = transform_quietly(embedder, texts)
    for text, states in zip(texts, found, strict=True):
        alone = transform_quietly(embedder, [text])[0]
        assert_allclose(states, alone, rtol=1e-4, atol=1e-4)
