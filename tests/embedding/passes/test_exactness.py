import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from _families import FAMILIES, build_model, shake_weights

from plug_sklearn.embedding.anatomy._families import PACKABLE
from plug_sklearn.embedding.models._models import LoadedModel
from plug_sklearn.embedding.passes import _exactness, _reading
from plug_sklearn.embedding.passes._batches import Batch
from plug_sklearn.embedding.passes._capture import Request
from plug_sklearn.embedding.passes._exactness import Trial, try_ways
from plug_sklearn.embedding.passes._forward import ForwardPass
from plug_sklearn.embedding.passes._preambles import Preamble
from plug_sklearn.embedding.passes._reading import Way
from plug_sklearn.embedding.prompts._tokenized import TokenizedPrompts

#: Their tiny configurations look only a few tokens back.
NARROW = {
    "cohere2",
    "gemma2",
    "gemma3, multimodal",
    "gemma3, text",
    "gpt_oss",
    "mistral",
    "olmo3",
}
REFUSING = {"falcon, alibi"}


def attempt(model: transformers.PreTrainedModel, stack: str | None = None) -> Trial:
    request = Request((0,), ("rs",), "last", stack)
    return try_ways(ForwardPass(LoadedModel(model), request))


def widen_window(name: str) -> transformers.PreTrainedModel:
    """Build a family's tiny model with a window that all its positions fit in."""
    config = FAMILIES[name].config()
    config.get_text_config().sliding_window = 64
    model = transformers.AutoModel.from_config(config)
    shake_weights(model)
    return model.eval()


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_takes_its_path(name: str) -> None:
    model, stack = build_model(name)
    trial = attempt(model, stack)
    family = model.config.get_text_config().model_type
    if family not in PACKABLE:
        why = f"token tries are not known to be exact for {family}"
        assert trial == Trial(Way.PADDED, why)
    elif name in NARROW:
        assert trial == Trial(Way.PADDED, f"{family} sees too few tokens back")
    elif name in REFUSING:
        assert trial.way is Way.PADDED
        assert f"{family} refuses token tries" in str(trial.why)
    else:
        assert trial == Trial(Way.TRIES)


@pytest.mark.parametrize("name", sorted(NARROW))
def test_wider_window_takes_tries(name: str) -> None:
    assert attempt(widen_window(name)) == Trial(Way.TRIES)


@pytest.mark.parametrize("name", ["bert", "mpt", "bloom", "mamba", "qwen3_next"])
def test_family_that_is_listed_wrongly_is_found_out(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    model, _ = build_model(name)
    family = model.config.model_type
    monkeypatch.setattr(_exactness, "PACKABLE", PACKABLE | {family})
    trial = attempt(model)
    assert trial.way is Way.PADDED
    assert family in str(trial.why)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_wrong_positions_are_found_out(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    """Positions in the row in place of depths in the trie: what a slip would do."""
    pad_tries = _reading.pad_tries

    def misplace(*arguments: object) -> Batch:
        batch = pad_tries(*arguments)
        places = np.broadcast_to(np.arange(batch.ids.shape[1]), batch.ids.shape)
        return replace(batch, positions=places.copy())

    monkeypatch.setattr(_reading, "pad_tries", misplace)
    model = copy.deepcopy(build_model("llama")[0]).to(dtype)
    assert attempt(model).way is Way.PADDED


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tries_are_taken_in_half_precision_too(dtype: torch.dtype) -> None:
    model = copy.deepcopy(build_model("llama")[0]).to(dtype)
    assert attempt(model) == Trial(Way.TRIES)


def test_model_that_padding_changes_is_read_in_equal_lengths() -> None:
    """FNet mixes tokens by a Fourier transform over the whole row."""
    config = transformers.FNetConfig(
        vocab_size=99,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        max_position_embeddings=64,
    )
    with torch.random.fork_rng(devices=[]):
        model = transformers.AutoModel.from_config(config)
    shake_weights(model)
    trial = attempt(model.eval())
    assert trial.way is Way.ALIKE
    assert "padding changes the states of fnet" in str(trial.why)


def test_preamble_is_tried_too(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = []
    run_preamble = ForwardPass.run_preamble

    def spy(forward: ForwardPass, prompts: TokenizedPrompts) -> Preamble:
        preamble = run_preamble(forward, prompts)
        lengths.append(preamble.n_tokens)
        return preamble

    monkeypatch.setattr(ForwardPass, "run_preamble", spy)
    attempt(build_model("llama")[0])
    assert lengths == [_exactness._PREAMBLE]


def test_model_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    try_it = _exactness._try
    monkeypatch.setattr(
        _exactness, "_try", lambda forward: tried.append(1) or try_it(forward)
    )
    loaded = LoadedModel(build_model("llama")[0])
    for layer in (0, 1):
        try_ways(ForwardPass(loaded, Request((layer,), ("rs",), "last")))
    assert len(tried) == 1
