import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from _families import (
    FAMILIES,
    HYBRID,
    POST_NORM,
    build_model,
    run_tokens,
    shake_weights,
)

from plug_sklearn import HFEmbeddingTransformer
from plug_sklearn.embedding import release_models
from plug_sklearn.embedding.models import LoadedModel
from plug_sklearn.embedding.passes import (
    Batch,
    ForwardPass,
    Request,
    SharedPrefix,
    Strategy,
    Trial,
    choose_strategy,
    read_activations,
)
from plug_sklearn.embedding.prompts import TokenizedPrompts

#: Causal families whose attention is biased by places in the row, or whose states run
#: forward: what texts begin with alike runs once, but no trie is exact.
SHARED_PREFIX = {
    "bloom",
    "bloom, late residual",
    "falcon, alibi",
    "mpt",
    *(HYBRID.keys() - {"mamba"}),
    "falcon_h1",
    "nemotron_h",
    # An index of its own chooses what attention looks at.
    "hy_v4",
    "qwen4_exp",
}
#: Encoders and encoder-decoders, which see the whole text; and Mamba, whose layers in
#: plain torch begin anew where several tokens follow a cache.
PADDED = {
    "mamba",
    "modernbert",
    *(POST_NORM.keys() - {"bloom, late residual", "opt, post-norm"}),
    *(name for name, family in FAMILIES.items() if family.stack is not None),
}


def attempt(model: transformers.PreTrainedModel, stack: str | None = None) -> Trial:
    request = Request((0,), ("rs",), ("last",), stack)
    return choose_strategy(ForwardPass(LoadedModel(model), request))


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_takes_the_shortest_way_that_is_exact(name: str) -> None:
    trial = attempt(*build_model(name))
    assert not trial.changes
    if name in PADDED:
        assert trial.strategy is Strategy.PADDED
    elif name in SHARED_PREFIX:
        assert trial.strategy is Strategy.SHARED_PREFIX
        assert "token tries are not exact" in str(trial.why)
    else:
        assert (trial.strategy, trial.why) == (Strategy.TRIES, None)
        assert trial.beyond_window is Strategy.SHARED_PREFIX


def test_texts_that_are_tried_fit_in_few_positions() -> None:
    config = FAMILIES["gpt2"].config()
    config.n_positions = 16
    with torch.random.fork_rng(devices=[]):
        model = transformers.AutoModel.from_config(config)
    shake_weights(model)
    assert attempt(model.eval()).strategy is Strategy.TRIES


@pytest.mark.parametrize(
    ("window", "why"), [(3, "its attention sees too few tokens back"), (4, None)]
)
def test_attention_must_see_some_tokens_back_for_tries(
    window: int, why: str | None
) -> None:
    config = transformers.MistralConfig(
        vocab_size=99,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=window,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModel.from_config(config)
    shake_weights(model)
    trial = attempt(model.eval())
    assert (trial.strategy is Strategy.TRIES) == (why is None)
    assert (why or "") in str(trial.why)


@pytest.mark.parametrize(
    ("name", "n_calls"), [("hrm_text", 16), ("albert", 3), ("t5gemma, encoder", 5)]
)
def test_calls_of_blocks_are_counted(name: str, n_calls: int) -> None:
    assert attempt(*build_model(name)).n_calls == n_calls


def state_of(model: transformers.PreTrainedModel) -> dict[str, object]:
    """Describe all of a model that a pass could change: modules, buffers, settings."""
    described: dict[str, object] = {"config": model.config.to_json_string()}
    for path, module in model.named_modules():
        described[path] = type(module).__name__, sorted(vars(module))
        for name, value in vars(module).items():
            if isinstance(value, bool | int | float | str):
                described[f"{path}.{name}"] = value
    for path, tensor in [*model.named_buffers(), *model.named_parameters()]:
        described[path] = tensor.tolist()
    return described


@pytest.mark.parametrize("name", FAMILIES)
def test_the_trial_leaves_no_trace_on_the_model(name: str) -> None:
    model, stack = build_model(name)
    before, output = state_of(model), run_tokens(model)[0]
    attempt(model, stack)
    assert state_of(model) == before
    assert torch.equal(run_tokens(model)[0], output)


def build_big_bird() -> transformers.PreTrainedModel:
    config = transformers.BigBirdConfig(
        vocab_size=99,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        block_size=2,
        num_random_blocks=1,
        attention_type="block_sparse",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModel.from_config(config)
    shake_weights(model)
    return model.eval()


def test_the_trial_leaves_the_sparse_attention_of_big_bird() -> None:
    """Texts as short as those that are tried switch it to full attention for good."""
    model = build_big_bird()
    before = state_of(model)
    trial = attempt(model)
    assert state_of(model) == before
    assert trial.strategy is Strategy.EQUAL_LENGTH
    assert trial.changes


def test_big_bird_reads_each_text_as_a_fresh_model_does() -> None:
    generator = np.random.default_rng(0)
    texts = [generator.integers(3, 95, n) for n in (5, 60, 9, 60, 40, 5)]
    expected = []
    for ids in texts:
        fresh = build_big_bird()
        states: list[torch.Tensor] = []
        fresh.encoder.layer[1].register_forward_hook(
            lambda _, __, output, states=states: states.append(output)
        )
        with torch.no_grad():
            fresh(torch.tensor(ids)[None])
        (output,) = states
        states = output[0] if isinstance(output, tuple) else output
        expected.append(states[0, len(ids) - 1].numpy())
    forward = ForwardPass(
        LoadedModel(build_big_bird()), Request((1,), ("rs",), ("last",))
    )
    trial = choose_strategy(forward)
    batches = read_activations(
        forward, TokenizedPrompts.join(texts), 4096, trial.strategy, trial.beyond_window
    )
    for numbers, found in batches:
        for number, states in zip(numbers, found, strict=True):
            np.testing.assert_allclose(
                states[0, 0], expected[number], rtol=1e-4, atol=1e-5
            )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_wrong_positions_are_found_out(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    """Positions in the row in place of depths in the trie: what a slip would do."""
    run = ForwardPass.run

    def misplace(forward: ForwardPass, batch: Batch, *prefix: SharedPrefix) -> object:
        if batch.positions is not None:
            places = np.broadcast_to(np.arange(batch.ids.shape[1]), batch.ids.shape)
            batch = replace(batch, positions=places.copy())
        return run(forward, batch, *prefix)

    monkeypatch.setattr(ForwardPass, "run", misplace)
    model = copy.deepcopy(build_model("llama")[0]).to(dtype)
    assert attempt(model).strategy is Strategy.SHARED_PREFIX


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tries_are_taken_in_half_precision_too(dtype: torch.dtype) -> None:
    model = copy.deepcopy(build_model("llama")[0]).to(dtype)
    assert attempt(model).strategy is Strategy.TRIES


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
    assert trial.strategy is Strategy.EQUAL_LENGTH
    assert "padding changes the states of fnet" in str(trial.why)


@pytest.mark.parametrize("n_errors", [1, 2])
def test_error_that_does_not_come_again_decides_nothing(
    monkeypatch: pytest.MonkeyPatch, n_errors: int
) -> None:
    run, left = ForwardPass.run, [n_errors]

    def fail_at_first(
        self: ForwardPass, batch: Batch, prefix: SharedPrefix | None = None
    ) -> np.ndarray:
        if batch.positions is not None and left[0]:
            left[0] -= 1
            raise RuntimeError("too little memory, for now")
        return run(self, batch, prefix)

    monkeypatch.setattr(ForwardPass, "run", fail_at_first)
    trial = attempt(build_model("llama")[0])
    assert (trial.strategy is Strategy.TRIES) == (n_errors == 1)
    assert (trial.why is None) == (n_errors == 1)


def test_failure_to_count_blocks_does_not_limit_the_layers() -> None:
    """The first pass counts the blocks, and fails here as if memory were short."""
    model, left = copy.deepcopy(build_model("llama")[0]), [1]

    def fail_once(*_: object) -> None:
        if left[0]:
            left[0] -= 1
            raise RuntimeError("too little memory, for now")

    model.register_forward_pre_hook(fail_once)
    trial = attempt(model)
    assert (trial.strategy, trial.n_calls) == (Strategy.TRIES, 1)
    assert trial.failed


def test_prefix_is_tried_too(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = []
    run_prefix = ForwardPass.run_prefix

    def spy(
        forward: ForwardPass, prompts: TokenizedPrompts, *, own_cache: bool = False
    ) -> SharedPrefix:
        prefix = run_prefix(forward, prompts, own_cache=own_cache)
        lengths.append(prefix.n_tokens)
        return prefix

    monkeypatch.setattr(ForwardPass, "run_prefix", spy)
    attempt(build_model("llama")[0])
    # Once before rows, and once before tries.
    assert lengths == [32] * 2


def test_model_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []
    run = ForwardPass.run
    monkeypatch.setattr(
        ForwardPass, "run", lambda *given: passes.append(1) or run(*given)
    )
    loaded = LoadedModel(build_model("llama")[0])
    choose_strategy(ForwardPass(loaded, Request((0,), ("rs",), ("last",))))
    n_tried = len(passes)
    assert n_tried
    choose_strategy(ForwardPass(loaded, Request((1,), ("rs",), ("last",))))
    assert len(passes) == n_tried


def test_wrapped_model_is_read_in_tries_all_the_same(
    llama: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forward = transformers.LlamaModel.forward
    # The wrapper shows none of the model's parameters.
    monkeypatch.setattr(
        transformers.LlamaModel,
        "forward",
        lambda self, **inputs: forward(self, **inputs),
    )
    release_models()
    embedder = HFEmbeddingTransformer(llama, device="cpu", verbose=True)
    embedder.fit_transform(["Gold is a metal.", "Gold is blue."])
    assert "No token tries" not in capsys.readouterr().err
    release_models()
