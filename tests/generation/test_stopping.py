"""When answers end."""

import numpy as np
import pytest
from _written import PROMPTS, SAMPLED, TEXTS, fit_probe
from numpy.testing import assert_allclose

from plug_sklearn import generate_with_probes


def test_an_answer_ends_with_the_end_of_text_token_and_others_go_on(
    writer: str,
) -> None:
    probe = fit_probe(writer)
    free = generate_with_probes(PROMPTS, probe, max_new_tokens=12)
    end = free[0].token_ids[4]
    answers = generate_with_probes(
        PROMPTS, probe, max_new_tokens=12, generation_kwargs={"eos_token_id": [end]}
    )
    first = free[0].token_ids.index(end) + 1
    assert answers[0].token_ids == free[0].token_ids[:first]
    assert answers[0].stopped_by == "eos"
    for before, after in zip(free, answers, strict=True):
        count = len(after.token_ids)
        assert after.token_ids == before.token_ids[:count]
        assert len(after.probabilities["probe"]) == count
        assert_allclose(
            after.probabilities["probe"],
            before.probabilities["probe"][:count],
            atol=1e-5,
        )
        assert after.stopped_by == ("eos" if end in after.token_ids else "length")


def test_a_threshold_ends_its_prompt_alone(writer: str) -> None:
    probe = fit_probe(writer)
    free = generate_with_probes(
        PROMPTS, probe, max_new_tokens=10, generation_kwargs=SAMPLED, random_state=2
    )
    seen = np.array([answer.probabilities["probe"][:, 1] for answer in free])
    threshold = float(np.sort(seen.max(axis=1))[1:].mean())
    answers = generate_with_probes(
        PROMPTS,
        probe,
        max_new_tokens=10,
        generation_kwargs=SAMPLED,
        random_state=2,
        stop={"probe": threshold},
    )
    reasons = set()
    for before, after, row in zip(free, answers, seen, strict=True):
        reached = np.flatnonzero(row >= threshold)
        count = reached[0] + 1 if len(reached) else 10
        assert after.token_ids == before.token_ids[:count]
        assert_allclose(after.probabilities["probe"][:, 1], row[:count], atol=1e-6)
        assert after.stopped_by == ("probe" if len(reached) else "length")
        reasons.add(after.stopped_by)
    assert reasons == {"probe", "length"}


def test_a_callable_sees_the_probabilities_of_each_token_so_far(writer: str) -> None:
    probes = {"a": fit_probe(writer), "b": fit_probe(writer, layers=[2])}
    seen: list[tuple[int, ...]] = []

    def stop(probabilities: dict[str, np.ndarray]) -> bool:
        assert probabilities.keys() == {"a", "b"}
        seen.append(probabilities["b"].shape)
        return len(probabilities["a"]) == 3

    (answer,) = generate_with_probes(PROMPTS[:1], probes, max_new_tokens=9, stop=stop)
    assert seen == [(1, 2), (2, 2), (3, 2)]
    assert answer.stopped_by == "stop"
    assert len(answer.token_ids) == 3


def test_each_prompt_may_have_a_rule_of_its_own(writer: str) -> None:
    probe = fit_probe(writer)
    free = generate_with_probes(PROMPTS, probe, max_new_tokens=6)
    rules = [None, {"probe": 0.0}, lambda seen: len(seen["probe"]) == 4]
    answers = generate_with_probes(PROMPTS, probe, max_new_tokens=6, stop=rules)
    assert [answer.stopped_by for answer in answers] == ["length", "probe", "stop"]
    for count, answer, whole in zip((6, 1, 4), answers, free, strict=True):
        assert answer.token_ids == whole.token_ids[:count]
    with pytest.raises(ValueError, match=r"one rule for each of the 3 .* Got 2"):
        generate_with_probes(PROMPTS, probe, max_new_tokens=6, stop=rules[:2])
    with pytest.raises(TypeError, match=r"'stop' parameter .* Got 0.5 instead"):
        generate_with_probes(PROMPTS, probe, max_new_tokens=6, stop=[0.5] * 3)


def test_more_than_two_classes_need_a_callable(writer: str) -> None:
    probe = fit_probe(writer)
    probe.fit(TEXTS, [0, 1, 2, 0, 1, 2])
    with pytest.raises(ValueError, match=r"callable for the probe 'probe'.* 3 classes"):
        generate_with_probes(PROMPTS, probe, max_new_tokens=2, stop={"probe": 0.5})
    (answer,) = generate_with_probes(PROMPTS[:1], probe, max_new_tokens=2)
    assert answer.probabilities["probe"].shape == (2, 3)
    assert answer.classes == {"probe": [0, 1, 2]}
