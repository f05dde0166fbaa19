from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from transformers import PreTrainedTokenizerFast

from plug_sklearn.embedding.prompts import OpenPrompt, TokenSelector
from plug_sklearn.embedding.prompts._special_tokens import SpecialTokens
from plug_sklearn.generation._counted_tokens import CountedTokens

#: Special tokens, the end-of-text token among them, blanks, punctuation and letters.
TOKENS = st.sampled_from([0, 1, 2, 203, 225, 18, 69, 86])


@pytest.fixture(scope="module")
def special(
    byte_tokenizer: Callable[..., PreTrainedTokenizerFast],
) -> SpecialTokens:
    return SpecialTokens(byte_tokenizer())


@pytest.mark.parametrize("token_filter", [None, "special", "non_text"])
@pytest.mark.parametrize("eos_token", [None, "<|im_end|>"])
@settings(max_examples=40)
@given(data=st.data())
def test_after_each_token_those_are_pooled_that_the_embedder_would_select(
    special: SpecialTokens,
    token_filter: str | None,
    eos_token: str | None,
    data: st.DataObject,
) -> None:
    selector = TokenSelector(special, token_filter, eos_token, [])
    prompts = []
    for _ in range(2):
        ids = data.draw(st.lists(TOKENS, min_size=1, max_size=5))
        own = data.draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
        owns_answer = data.draw(st.booleans())
        prompts.append(
            OpenPrompt(np.array(ids, np.int32), np.array(own, bool), owns_answer)
        )
    answers = data.draw(st.lists(st.tuples(TOKENS, TOKENS), max_size=6))
    counted = CountedTokens(
        selector, prompts, ["sum", "first", "last"], torch.device("cpu")
    )
    longest = max(len(prompt.ids) for prompt in prompts)
    pooler = counted.start(longest)
    # The state of a token is its position, which tells tokens apart.
    states = torch.zeros(2, longest, 1)
    for row, prompt in enumerate(prompts):
        places = torch.arange(len(prompt.ids)) + 1.0
        states[row, longest - len(prompt.ids) :, 0] = places
    (pooled,) = pooler.pool(states.reshape(-1, 1))
    counted.set_prompts(pooler.unpack(pooled[:, :, None]))
    for n_new in range(len(answers) + 1):
        if n_new:
            tokens = answers[n_new - 1]
            places = [len(prompt.ids) + float(n_new) for prompt in prompts]
            counted.add(tokens, np.ones(2, bool), torch.tensor(places)[:, None, None])
        found = counted.pooled()
        for row, prompt in enumerate(prompts):
            new = np.array([answer[row] for answer in answers[:n_new]], np.int32)
            own = np.append(prompt.own, np.full(n_new, prompt.owns_answer))
            assert found.count[row] == 0 or own.any()
            if not own.any():
                continue
            chosen, _ = selector.select([np.append(prompt.ids, new)], [own])
            kept = chosen.kept_of(0) + 1
            assert found.count[row] == len(kept)
            assert found.values["first"][row, 0, 0] == kept[0]
            assert found.values["last"][row, 0, 0] == kept[-1]
            assert_allclose(found.pool("mean")[row, 0, 0], kept.mean(), rtol=1e-5)
