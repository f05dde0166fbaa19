import gc
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sklearn
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
from numpy.testing import assert_allclose
from sklearn.pipeline import Pipeline
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from plug_sklearn import generate_with_probes, stream_with_probes
from plug_sklearn.embedding import register_model, unregister_model
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


def test_a_stream_is_never_far_ahead_of_its_reader(writer: str) -> None:
    """A reader that stops costs no memory."""
    n_drawn = []

    def count(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        n_drawn.append(1)
        return scores

    stream = stream_with_probes(
        PROMPTS[:1],
        fit_probe(writer),
        max_new_tokens=40,
        generation_kwargs={"logits_processor": [count]},
    )
    for token in stream:
        # One token waits, one is handed out, and the next one is drawn to read it.
        assert len(n_drawn) <= token.position + 4
    assert len(n_drawn) == 41


def test_a_stream_keeps_the_settings_of_scikit_learn(writer: str) -> None:
    seen = []

    def stop(_: object) -> bool:
        seen.append(sklearn.get_config()["enable_metadata_routing"])
        return False

    probe = fit_probe(writer)
    with sklearn.config_context(enable_metadata_routing=True):
        list(stream_with_probes(PROMPTS[:1], probe, max_new_tokens=2, stop=stop))
    assert seen == [True, True]
