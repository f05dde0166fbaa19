"""Options of the model's own generate."""

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
