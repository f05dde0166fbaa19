"""Options of the model's own generate."""

import threading
from typing import Any

import pytest
import torch
from _written import PROMPTS, SAMPLED, fit_probe
from transformers import GenerationConfig, StoppingCriteria

from plug_sklearn import generate_with_probes


def test_options_of_generate_pass_through(writer: str) -> None:
    class AfterThree(StoppingCriteria):
        n_calls = 0

        def __call__(  # type: ignore[override]  # what generate adds is not used
            self, input_ids: torch.Tensor, *_: object, **__: object
        ) -> torch.Tensor:
            self.n_calls += 1
            return torch.full((len(input_ids),), self.n_calls >= 3)

    probe = fit_probe(writer)
    free = generate_with_probes(PROMPTS[:1], probe, max_new_tokens=10)[0]
    stopped = generate_with_probes(
        PROMPTS[:1],
        probe,
        max_new_tokens=10,
        generation_kwargs={"stopping_criteria": [AfterThree()]},
    )[0]
    assert stopped.token_ids == free.token_ids[:3]
    assert stopped.stopped_by == "stopping_criteria"
    assert len(stopped.probabilities["probe"]) == 3
    letter = next(c for c in free.text if c.isascii() and c.isalpha())
    by_string = generate_with_probes(
        PROMPTS[:1],
        probe,
        max_new_tokens=10,
        generation_kwargs={"stop_strings": letter},
    )[0]
    assert letter in by_string.tokens[-1]
    assert letter not in "".join(by_string.tokens[:-1])
    assert by_string.stopped_by == "stop_strings"
    config = GenerationConfig(do_sample=True, temperature=3.0)
    one, other = (
        generate_with_probes(
            PROMPTS, probe, max_new_tokens=5, generation_kwargs=given, random_state=4
        )
        for given in (SAMPLED, {"generation_config": config})
    )
    assert [a.token_ids for a in one] == [a.token_ids for a in other]


def test_threads_draw_from_their_own_seeds(writer: str) -> None:
    probe = fit_probe(writer)

    def write(seed: int, processors: list[Any]) -> list[int]:
        (answer,) = generate_with_probes(
            PROMPTS[:1],
            probe,
            max_new_tokens=4,
            generation_kwargs={**SAMPLED, "logits_processor": processors},
            random_state=seed,
        )
        return answer.token_ids

    alone = [write(seed, []) for seed in (0, 1)]
    found: dict[int, list[int]] = {}
    other_draws, first_drew = threading.Event(), threading.Event()

    def wait_for_the_other(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        # The other thread must not draw before this one has.
        other_draws.wait(timeout=0.2)
        return scores

    def wait_for_the_first(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        other_draws.set()
        first_drew.wait(timeout=0.2)
        return scores

    def run(seed: int, processor: Any) -> None:  # noqa: ANN401 - a function of tensors
        found[seed] = write(seed, [processor])
        first_drew.set()

    before = torch.get_rng_state()
    threads = [
        threading.Thread(target=run, args=arguments)
        for arguments in ((0, wait_for_the_other), (1, wait_for_the_first))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[seed] for seed in (0, 1)] == alone
    assert torch.equal(torch.get_rng_state(), before)


def test_stop_strings_that_are_no_strings_are_refused(writer: str) -> None:
    with pytest.raises(TypeError, match=r"'stop_strings'.*Got \[3\]"):
        generate_with_probes(
            PROMPTS,
            fit_probe(writer),
            max_new_tokens=2,
            generation_kwargs={"stop_strings": [3]},
        )
