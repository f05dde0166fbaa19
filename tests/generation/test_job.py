"""What a call refuses, and how it plans its batches."""

from typing import Any

import pytest
from _written import PROMPTS, fit_probe
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from transformers import GenerationConfig

from plug_sklearn import generate_with_probes


def test_batches_change_no_greedy_answer(writer: str) -> None:
    probe = fit_probe(writer, pooling="mean")
    whole = generate_with_probes(PROMPTS * 2, probe, max_new_tokens=5)
    parts = generate_with_probes(PROMPTS * 2, probe, max_new_tokens=5, batch_size=2)
    for one, other in zip(whole, parts, strict=True):
        assert one.token_ids == other.token_ids
        assert_allclose(
            one.probabilities["probe"], other.probabilities["probe"], atol=1e-5
        )


def test_where_padding_is_not_exact_prompts_of_equal_length_are_batched(
    writer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = fit_probe(writer)
    expected = generate_with_probes(PROMPTS, probe, max_new_tokens=3)
    outcomes = {False: None, True: "padding changes it"}
    monkeypatch.setattr(
        "plug_sklearn.generation._job.explain_writing",
        lambda _, *, padded: outcomes[padded],
    )
    found = generate_with_probes(PROMPTS, probe, max_new_tokens=3)
    assert [a.token_ids for a in found] == [a.token_ids for a in expected]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"prompts": "Gold"}, "'prompts' parameter of generate_with_probes must be a list"),
    ({"prompts": []}, "'prompts' parameter .* at least one text"),
    ({"prompts": ["Gold", 3]}, "'prompts' parameter .* position 1"),
    (
        {"prompts": ["Gold", ""]},
        "'prompts' parameter .* at least one token.*position 1",
    ),
    ({"probes": {}}, "'probes' parameter .* at least one pipeline"),
    ({"probes": 3}, "'probes' parameter .* fitted pipeline.*Got int"),
    ({"max_new_tokens": 0}, "'max_new_tokens' parameter .* at least 1. Got 0"),
    ({"max_new_tokens": 2.5}, "'max_new_tokens' parameter .* Got 2.5"),
    ({"max_new_tokens": 199}, "'max_new_tokens' parameter .* at most 117 after"),
    ({"batch_size": 0}, "'batch_size' parameter .* Got 0"),
    ({"random_state": "one"}, "'random_state' parameter .* Got 'one'"),
    ({"stop": {"prob": 0.5}}, r"'stop' parameter .* \['probe'\]. Got 'prob'"),
    ({"stop": {"probe": 50}}, r"'stop' parameter .* \[0, 1\] .* Got 50"),
    ({"stop": 0.5}, "'stop' parameter .* Got 0.5"),
    ({"stop": {}}, "'stop' parameter .* Got {}"),
    ({"stop": lambda seen: seen["probe"]}, "'stop' parameter .* True or False"),
    ({"prompts": ["Gold" * 99]}, "'prompts' parameter .* leave room for an answer"),
    ({"generation_kwargs": {"stopping_criteria": 3}}, "'stopping_criteria' .* a list"),
    ({"generation_kwargs": {"num_beams": 2}}, "'num_beams' .* must be 1"),
    ({"generation_kwargs": {"num_return_sequences": 2}}, "'num_return_sequences'"),
    ({"generation_kwargs": {"use_cache": False}}, "'use_cache' .* must be True"),
    ({"generation_kwargs": {"max_new_tokens": 3}}, "not hold 'max_new_tokens'"),
    ({"generation_kwargs": {"streamer": object()}}, "not hold 'streamer'"),
    ({"generation_kwargs": {"guidance_scale": 2.0}}, "'guidance_scale' .* must be"),
    (
        {"generation_kwargs": {"generation_config": GenerationConfig(num_beams=3)}},
        "'num_beams' .* must be 1",
    ),
    ({"generation_kwargs": ["num_beams"]}, "'generation_kwargs' parameter .* a dict"),
    ({"generation_kwargs": {"temprature": 1}}, "'generation_kwargs' .*temprature"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_bad_input_is_refused_by_name(
    writer: str, changes: dict[str, Any], message: str
) -> None:
    given = {"prompts": PROMPTS, "probes": fit_probe(writer), "max_new_tokens": 3}
    with pytest.raises((TypeError, ValueError), match=f"(?s){message}"):
        generate_with_probes(**{**given, **changes})


def test_probes_that_cannot_be_read_together_are_refused(writer: str) -> None:
    mine, other = fit_probe(writer), fit_probe(writer, prompt_template="{text}!")
    with pytest.raises(ValueError, match=r"prompt_template=None for 'a' and '{text}!'"):
        generate_with_probes(PROMPTS, {"a": mine, "b": other}, max_new_tokens=2)
    with pytest.raises(ValueError, match=r"none of .* Got 'eos'"):
        generate_with_probes(PROMPTS, {"eos": mine}, max_new_tokens=2)
    with pytest.raises(NotFittedError, match="Got one for 'b' that is not fitted"):
        generate_with_probes(PROMPTS, {"a": mine, "b": clone(mine)}, max_new_tokens=2)
    with pytest.raises(TypeError, match="last step has predict_proba"):
        generate_with_probes(PROMPTS, mine[:-1], max_new_tokens=2)


def test_models_that_cannot_write_are_refused(bert: str, t5: str, llama: str) -> None:
    for folder in (bert, t5):
        with pytest.raises(ValueError, match="'probes' parameter of generate_with"):
            generate_with_probes(["Gold"], fit_probe(folder), max_new_tokens=2)
    with pytest.raises(ValueError, match=r"hold no language-model head: 'lm_head"):
        generate_with_probes(["Gold"], fit_probe(llama), max_new_tokens=2)
