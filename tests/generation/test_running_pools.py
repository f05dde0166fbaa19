"""Which tokens of a prompt and its growing answer are pooled, and how."""

from math import inf

import numpy as np
import pytest
import torch
from _written import fit_probe
from numpy.testing import assert_allclose
from transformers import AutoTokenizer, LogitsProcessor, PreTrainedTokenizerFast

from plug_sklearn import generate_with_probes

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
