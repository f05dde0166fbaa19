"""Which tokens of a prompt and its growing answer are pooled, and how."""

from math import inf

import numpy as np
import pytest
import torch
from _written import SAMPLED, fit_probe, predict_by_embedder
from numpy.testing import assert_allclose
from transformers import AutoTokenizer, LogitsProcessor, PreTrainedTokenizerFast

from plug_sklearn import generate_with_probes
from plug_sklearn.embedding import describe_model
from plug_sklearn.embedding.prompts import read_texts

#: Special tokens, the end-of-text token among them, blanks, punctuation and letters.
TOKENS = [0, 1, 2, 203, 225, 18, 69, 86]
N_TEXTS, N_NEW = 30, 6
#: A token that ends answers, and that is never written here.
NEVER = {"eos_token_id": [329]}


class Dictated(LogitsProcessor):
    """Makes the model write given tokens (n_prompts, n_new)."""

    def __init__(self, tokens: torch.Tensor) -> None:
        self.tokens = tokens
        self.n_written = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        place = min(self.n_written, self.tokens.shape[1] - 1)
        self.n_written += 1
        chosen = self.tokens[:, place : place + 1]
        return torch.full_like(scores, -inf).scatter(1, chosen, 0.0)


def draw_ids(tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
    """Draw texts of some tokens, each of which begins with a prompt.

    Each beginning is a text that the tokenizer splits into just these tokens.
    """
    generator = np.random.default_rng(0)
    found: list[list[int]] = []
    while len(found) < N_TEXTS:
        n_tokens = N_NEW + generator.integers(1, 6)
        ids = generator.choice(TOKENS, size=n_tokens).tolist()
        texts = [tokenizer.decode(ids[:end]) for end in range(1, n_tokens + 1)]
        split = tokenizer(texts)["input_ids"]
        if split == [ids[:end] for end in range(1, n_tokens + 1)]:
            found.append(ids)
    return found


@pytest.mark.filterwarnings("ignore:.* have no token left:UserWarning")
@pytest.mark.parametrize("token_filter", [None, "special", "non_text"])
@pytest.mark.parametrize("eos_token", [None, "<|im_end|>"])
def test_after_each_token_the_pools_are_those_of_the_text_so_far(
    writer: str, token_filter: str | None, eos_token: str | None
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(writer)
    probe = fit_probe(
        writer,
        pooling=("last", "first", "mean", "max"),
        token_filter=token_filter,
        eos_token=eos_token,
    )
    drawn = draw_ids(tokenizer)
    answers = generate_with_probes(
        [tokenizer.decode(ids[:-N_NEW]) for ids in drawn],
        probe,
        max_new_tokens=N_NEW,
        generation_kwargs=NEVER
        | {"logits_processor": [Dictated(torch.tensor([i[-N_NEW:] for i in drawn]))]},
    )
    for ids, answer in zip(drawn, answers, strict=True):
        assert answer.token_ids == ids[-N_NEW:]
        beginnings = [
            tokenizer.decode(ids[:end]) for end in range(len(ids) - N_NEW, len(ids) + 1)
        ]
        expected = probe.predict_proba(beginnings)
        assert_allclose(answer.prompt_probabilities["probe"], expected[0], atol=1e-4)
        assert_allclose(answer.probabilities["probe"], expected[1:], atol=1e-4)
    seen = np.concatenate([answer.probabilities["probe"] for answer in answers])
    assert np.ptp(seen[:, 1]) > 1e-2


def holds_text(token: str) -> bool:
    """Tell whether a token holds a letter or digit, or a part of a character."""
    return any(one.isalnum() or one == "\ufffd" for one in token)


CONVERSATIONS = [
    [{"role": "user", "content": "The city of Paris is in France."}],
    [
        {"role": "system", "content": "1 2 3"},
        {"role": "user", "content": "Gold"},
        {"role": "assistant", "content": "Au, is that true?"},
        {"role": "user", "content": "Iron"},
    ],
]


@pytest.mark.parametrize("roles", [None, ("assistant",), ("user", "system")])
@pytest.mark.parametrize("token_filter", [None, "non_text"])
def test_of_conversations_the_tokens_are_pooled_that_the_embedder_pools(
    writer: str, roles: tuple[str, ...] | None, token_filter: str | None
) -> None:
    """An answer is one more message of the assistant."""
    probe = fit_probe(writer, pooling="mean")
    embedder = probe[0].set_params(roles=roles).fit(CONVERSATIONS[1:])
    closed = describe_model(embedder).read_prompts(
        read_texts(CONVERSATIONS[1:], "a test")
    )
    embedder.set_params(token_filter=token_filter).fit(CONVERSATIONS[1:])
    (answer,) = generate_with_probes(
        CONVERSATIONS[1:],
        probe,
        max_new_tokens=6,
        generation_kwargs=SAMPLED,
        random_state=3,
    )
    tokenizer = AutoTokenizer.from_pretrained(writer)
    opening = tokenizer("<|im_start|>assistant\n")["input_ids"]
    is_pooled = roles is None or "assistant" in roles
    for count, found in enumerate(answer.probabilities["probe"], 1):
        ids = [*closed.ids, *opening, *answer.token_ids[:count]]
        own = [*closed.kept, *[False] * len(opening), *[is_pooled] * count]
        kept = np.array(own) & [
            token_filter is None or holds_text(tokenizer.decode([each])) for each in ids
        ]
        expected = predict_by_embedder(probe, ids, kept)
        assert_allclose(found, expected, atol=1e-4)


def test_prompts_without_a_pooled_token_have_no_probabilities_yet(writer: str) -> None:
    probe = fit_probe(writer, pooling="mean")
    probe[0].set_params(roles=("assistant",)).fit(CONVERSATIONS[1:])
    answer, other = generate_with_probes(CONVERSATIONS, probe, max_new_tokens=2)
    assert np.isnan(answer.prompt_probabilities["probe"]).all()
    assert not np.isnan(other.prompt_probabilities["probe"]).any()
    assert not np.isnan(answer.probabilities["probe"]).any()
