"""Hooks into generate: what they leave behind, and the order of passes."""

from itertools import zip_longest
from typing import Any

import numpy as np
import pytest
import torch
from _written import PROMPTS, SAMPLED, fit_probe
from numpy.testing import assert_allclose, assert_array_equal

from plug_sklearn import generate_with_probes, stream_with_probes
from plug_sklearn.embedding import describe_model
from plug_sklearn.embedding.models import PATIENCE, Turns


def test_sampling_leaves_generators_as_they_were(writer: str) -> None:
    probe = fit_probe(writer)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 - the global state is what is tested
    runs = [
        generate_with_probes(
            PROMPTS, probe, max_new_tokens=6, generation_kwargs=SAMPLED, random_state=7
        )
        for _ in range(2)
    ]
    stream = stream_with_probes(
        PROMPTS, probe, max_new_tokens=6, generation_kwargs=SAMPLED, random_state=7
    )
    streamed: dict[int, list[int]] = {}
    for token in stream:
        streamed.setdefault(token.prompt, []).append(token.token_id)
    assert torch.equal(torch.get_rng_state(), before)
    assert_array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002 - as above
    for row, (one, other) in enumerate(zip(*runs, strict=True)):
        assert one.token_ids == other.token_ids == streamed[row]


def test_streams_of_one_model_do_not_disturb_each_other(writer: str) -> None:
    probes = [fit_probe(writer), fit_probe(writer, layers=[0], pooling="mean")]
    options = {"max_new_tokens": 8, "generation_kwargs": SAMPLED}
    streams = [
        stream_with_probes([prompt], probe, random_state=seed, **options)
        for seed, (prompt, probe) in enumerate(zip(PROMPTS, probes, strict=False))
    ]
    taken = [list(tokens) for tokens in zip(*zip_longest(*streams), strict=True)]
    for seed, tokens in enumerate(taken):
        (answer,) = generate_with_probes(
            [PROMPTS[seed]], probes[seed], random_state=seed, **options
        )
        found = [token for token in tokens if token is not None]
        assert [token.token_id for token in found] == answer.token_ids
        seen = [token.probabilities["probe"] for token in found]
        assert_allclose(seen, answer.probabilities["probe"], atol=1e-6)


def test_passes_up_to_the_first_token_go_first(
    writer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pass draws the token, the next one reads its states."""
    probe = fit_probe(writer)
    generate_with_probes(PROMPTS[:1], probe, max_new_tokens=1)
    turns = describe_model(probe[0]).load().turns
    keys, take = [], Turns.take

    def spy(self: Turns, key: int) -> Any:  # noqa: ANN401 - a context manager
        keys.append(key)
        return take(self, key)

    monkeypatch.setattr(Turns, "take", spy)
    now = turns.arrive()
    generate_with_probes(PROMPTS[:1], probe, max_new_tokens=3)
    assert keys[0] == keys[1] == now + 1
    assert min(keys[2:]) > now + PATIENCE


def test_an_error_while_writing_is_raised_and_leaves_nothing(writer: str) -> None:
    probe = fit_probe(writer)
    free = generate_with_probes(PROMPTS, probe, max_new_tokens=4)

    def fail(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if input_ids.shape[1] > 40:
            raise RuntimeError("a broken logits processor")
        return scores

    options = {"logits_processor": [fail]}
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="a broken logits processor"):
        generate_with_probes(
            PROMPTS, probe, max_new_tokens=30, generation_kwargs=options, random_state=0
        )
    stream = stream_with_probes(
        PROMPTS, probe, max_new_tokens=30, generation_kwargs=options, random_state=0
    )
    with pytest.raises(RuntimeError, match="a broken logits processor"):
        list(stream)
    assert torch.equal(torch.get_rng_state(), state)
    again = generate_with_probes(PROMPTS, probe, max_new_tokens=4)
    assert [one.token_ids for one in again] == [one.token_ids for one in free]
