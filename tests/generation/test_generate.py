import gc
import threading
from collections.abc import Callable
from itertools import zip_longest
from typing import Any

import numpy as np
import pytest
import torch
from _families import FAMILIES, shake_weights
from _written import (
    PROMPTS,
    SAMPLED,
    TEXTS,
    fit_probe,
    predict_by_embedder,
    predict_naively,
)
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    StoppingCriteria,
)

from plug_sklearn import generate_with_probes, stream_with_probes
from plug_sklearn.embedding import describe_model, register_model, unregister_model
from plug_sklearn.embedding.models import PATIENCE, Turns
from plug_sklearn.embedding.prompts import read_texts
from plug_sklearn.generation import ProbedText

POOLINGS = ("last", "first", "mean", "max")
#: Attention to all, with biases, in windows, over local blocks; recurrent layers;
#: experts; streams of several channels; images as well.
WRITTEN = [
    "bloom",
    "deepseek_v3",
    "falcon, alibi",
    "falcon_h1",
    "gemma2",
    "gemma3, multimodal",
    "gemma3n, text",
    "gemma4, text",
    "gpt2",
    "gpt_neo",
    "gpt_oss",
    "hy_v4",
    "llama",
    "llama4, text",
    "mamba",
    "mistral",
    "mpt",
    "nemotron_h",
    "olmo3",
    "opt",
    "qwen2_moe",
    "qwen3_next",
]


def load(folder: str) -> PreTrainedModel:
    """Load the model that writes, as any user of transformers would."""
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def build(name: str) -> PreTrainedModel:
    """Build a family's tiny model with a head and a larger vocabulary."""
    config: Any = FAMILIES[name].config()
    for one in (config, config.get_text_config()):
        one.vocab_size, one.eos_token_id = 330, None
        if hasattr(one, "vocab_size_per_layer_input"):
            one.vocab_size_per_layer_input = 330
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
    shake_weights(model)
    return model.eval()


def holds_text(token: str) -> bool:
    """Tell whether a token holds a letter or digit, or a part of a character."""
    return any(one.isalnum() or one == "\ufffd" for one in token)


def list_pooled(answer: ProbedText, n_prompt: int) -> list[np.ndarray]:
    """All tokens, of the prompt alone and after each new one."""
    counts = range(len(answer.token_ids) + 1)
    return [np.ones(n_prompt + count, dtype=bool) for count in counts]


def check_answers(
    probe: Pipeline,
    model: PreTrainedModel,
    prompts: list[list[int]],
    answers: list[ProbedText],
    pooled: Callable[[int, ProbedText], list[np.ndarray]],
) -> None:
    """Compare each probability with that of the same token ids as a text."""
    for row, (ids, answer) in enumerate(zip(prompts, answers, strict=True)):
        found = [answer.prompt_probabilities["probe"], *answer.probabilities["probe"]]
        for count, (got, mask) in enumerate(
            zip(found, pooled(row, answer), strict=True)
        ):
            text = [*ids, *answer.token_ids[:count]]
            if mask.any():
                expected = predict_naively(probe, model, text, mask)
                assert_allclose(got, expected, atol=1e-4)
            else:
                assert np.isnan(got).all()


@pytest.mark.parametrize("name", WRITTEN)
def test_probabilities_are_those_of_the_same_tokens_as_a_text(
    name: str, byte_tokenizer: Callable[..., PreTrainedTokenizerFast]
) -> None:
    model, tokenizer = build(name), byte_tokenizer()
    register_model(name, model, tokenizer)
    probe = fit_probe(name, layers=[0, -1], pooling=POOLINGS)
    answers = generate_with_probes(
        PROMPTS, probe, max_new_tokens=8, generation_kwargs=SAMPLED, random_state=0
    )
    unregister_model(name)
    prompts = tokenizer(PROMPTS)["input_ids"]
    check_answers(
        probe, model, prompts, answers, lambda row, a: list_pooled(a, len(prompts[row]))
    )
    seen = np.concatenate([answer.probabilities["probe"] for answer in answers])
    assert np.ptp(seen[:, 1]) > 1e-3
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("part", ["attn", "mlp"])
def test_each_pooling_alone_equals_predict_proba(
    writer: str, pooling: str, part: str
) -> None:
    probe = fit_probe(writer, pooling=pooling, parts=[part])
    answers = generate_with_probes(
        PROMPTS, probe, max_new_tokens=6, generation_kwargs=SAMPLED, random_state=1
    )
    tokenizer = AutoTokenizer.from_pretrained(writer)
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        expected = probe.predict_proba([prompt])[0]
        assert_allclose(answer.prompt_probabilities["probe"], expected, atol=1e-4)
        before = tokenizer(prompt)["input_ids"]
        for count, found in enumerate(answer.probabilities["probe"], 1):
            ids = [*before, *answer.token_ids[:count]]
            expected = predict_by_embedder(probe, ids, np.ones(len(ids), dtype=bool))
            assert_allclose(found, expected, atol=1e-4)


def test_what_is_written_is_what_generate_writes(writer: str) -> None:
    model, tokenizer = load(writer), AutoTokenizer.from_pretrained(writer)
    probe = fit_probe(writer)
    encoded = tokenizer(PROMPTS, padding=True, padding_side="left", return_tensors="pt")
    for options in ({}, SAMPLED, {"min_new_tokens": 9, "repetition_penalty": 1.4}):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            expected = model.generate(**encoded, max_new_tokens=9, **options)
        answers = generate_with_probes(
            PROMPTS, probe, max_new_tokens=9, generation_kwargs=options, random_state=5
        )
        for row, answer in zip(expected, answers, strict=True):
            new = row[encoded["input_ids"].shape[1] :].tolist()
            assert answer.token_ids == new[: len(answer.token_ids)]
            assert answer.text == tokenizer.decode(new, skip_special_tokens=True)


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


def test_probes_of_several_layers_and_poolings_are_as_each_alone(writer: str) -> None:
    probes = {
        "early": fit_probe(writer, layers=[0], parts=("rs", "attn"), pooling="max"),
        "late": fit_probe(writer, layers=[-1, 1], pooling=("mean", "last")),
        "half": fit_probe(writer, activation_dtype="float16"),
    }
    together = generate_with_probes(PROMPTS, probes, max_new_tokens=5)
    for name, probe in probes.items():
        alone = generate_with_probes(PROMPTS, probe, max_new_tokens=5)
        for one, other in zip(together, alone, strict=True):
            assert_allclose(one.probabilities[name], other.probabilities["probe"])
            assert one.token_ids == other.token_ids


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


def test_a_chat_template_opens_the_answer(writer: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(writer)
    probe = fit_probe(writer, chat_template=True, prompt_template="Is it? {text}")
    (answer,) = generate_with_probes(["Gold"], probe, max_new_tokens=3)
    prompt = "<|im_start|>user\nIs it? Gold<|im_end|>\n<|im_start|>assistant\n"
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    written = load(writer).generate(ids, max_new_tokens=3)[0, ids.shape[1] :]
    assert answer.token_ids == written.tolist()
    # The opening of the answer is no text.
    expected = probe.predict_proba(["Gold"])[0]
    assert_allclose(answer.prompt_probabilities["probe"], expected, atol=1e-4)


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
        assert torch.equal(torch.get_rng_state(), before)
        streamed.setdefault(token.prompt, []).append(token.token_id)
    assert torch.equal(torch.get_rng_state(), before)
    assert_array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002 - as above
    for row, (one, other) in enumerate(zip(*runs, strict=True)):
        assert one.token_ids == other.token_ids == streamed[row]


def test_tokens_joined_are_the_text(writer: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(writer)
    probe = fit_probe(writer)
    options = {"prompts": PROMPTS, "probes": probe, "max_new_tokens": 25}
    options |= {"generation_kwargs": SAMPLED, "random_state": 11}
    answers = generate_with_probes(**options)
    pieces: dict[int, str] = {}
    for token in stream_with_probes(**options):
        pieces[token.prompt] = pieces.get(token.prompt, "") + token.token
    for row, answer in enumerate(answers):
        expected = tokenizer.decode(answer.token_ids, skip_special_tokens=True)
        assert answer.text == "".join(answer.tokens) == pieces[row] == expected
        assert len(answer.tokens) == len(answer.token_ids)


def test_a_stream_gives_what_the_whole_gives(writer: str) -> None:
    probe = fit_probe(writer, pooling="mean")
    answers = generate_with_probes(PROMPTS, probe, max_new_tokens=5)
    positions = dict.fromkeys(range(len(PROMPTS)), 0)
    for token in stream_with_probes(PROMPTS, probe, max_new_tokens=5):
        answer = answers[token.prompt]
        assert token.position == positions[token.prompt]
        positions[token.prompt] += 1
        assert token.token_id == answer.token_ids[token.position]
        found = answer.probabilities["probe"][token.position]
        assert_allclose(token.probabilities["probe"], found, atol=1e-6)
        is_last = token.position == len(answer.token_ids) - 1
        assert token.stopped_by == (answer.stopped_by if is_last else None)
    assert list(positions.values()) == [len(answer.token_ids) for answer in answers]


def test_a_stream_that_is_left_ends_its_thread(writer: str) -> None:
    probe = fit_probe(writer)
    n_threads = threading.active_count()
    for token in stream_with_probes(PROMPTS, probe, max_new_tokens=40):
        # The model can be read meanwhile.
        assert probe.predict_proba(TEXTS[:1]).shape == (1, 2)
        if token.position == 2:
            break
    del token
    gc.collect()
    assert threading.active_count() == n_threads
    stream = stream_with_probes(PROMPTS, probe, max_new_tokens=40)
    next(stream)
    stream.close()
    assert threading.active_count() == n_threads


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


def test_more_than_two_classes_need_a_callable(writer: str) -> None:
    probe = fit_probe(writer)
    probe.fit(TEXTS, [0, 1, 2, 0, 1, 2])
    with pytest.raises(ValueError, match=r"callable for the probe 'probe'.* 3 classes"):
        generate_with_probes(PROMPTS, probe, max_new_tokens=2, stop={"probe": 0.5})
    (answer,) = generate_with_probes(PROMPTS[:1], probe, max_new_tokens=2)
    assert answer.probabilities["probe"].shape == (2, 3)
    assert answer.classes == {"probe": [0, 1, 2]}
