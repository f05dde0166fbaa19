"""Whatever texts share a pass, each has the states that it has when it runs alone.

Every family here makes some way of sharing wrong: token tries, cached prefixes,
padding, or what a text leaves behind in the model.
"""

import functools
from collections.abc import Callable

import numpy as np
import pytest
import torch
import transformers as hf
from torch import Tensor

from plug_sklearn import HFEmbeddingTransformer
from plug_sklearn.embedding import release_models

SHOTS = "Is it true? Gold: yes. Iron: no. Paris is in Peru: no. Lima is in Peru: yes. "
TEXTS = [
    *(SHOTS + ending for ending in ("Au", "Fe is iron", "1 2 3", "is that true?", "a")),
    *("The city of " + name for name in ("Paris", "Lima", "Paris is", "Peru", "")),
    "Gold!",
    "One",
]
_SIZES = {
    "vocab_size": 330,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
}
_GROUPED = {**_SIZES, "num_key_value_heads": 2, "head_dim": 8}
#: A configuration of each family, the path of its blocks, and what is wrong for it.
FAMILIES: dict[str, tuple[Callable[[], hf.PreTrainedConfig], str]] = {
    # Nothing is.
    "llama": (lambda: hf.LlamaConfig(**_GROUPED), "layers"),
    # A token sees what comes after it: no prefix has states of its own.
    "bert": (lambda: hf.BertConfig(**_SIZES), "encoder.layer"),
    # Attention is biased by places in the row, which are no depths in a trie.
    "bloom": (
        lambda: hf.BloomConfig(vocab_size=330, hidden_size=32, n_layer=3, n_head=4),
        "h",
    ),
    # A token sees 8 tokens back, and all its ancestors in a trie.
    "mistral": (lambda: hf.MistralConfig(**_GROUPED, sliding_window=8), "layers"),
    # Its layers begin anew after a cached prefix.
    "mamba": (
        lambda: hf.MambaConfig(
            vocab_size=330,
            hidden_size=32,
            num_hidden_layers=3,
            state_size=4,
            pad_token_id=0,
        ),
        "layers",
    ),
    # States run forward, and only some layers attend.
    "qwen3_next": (
        lambda: hf.Qwen3NextConfig(
            **{**_GROUPED, "num_hidden_layers": 2},
            layer_types=["linear_attention", "full_attention"],
            linear_num_key_heads=2,
            linear_num_value_heads=4,
            linear_key_head_dim=8,
            linear_value_head_dim=8,
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=24,
            shared_expert_intermediate_size=24,
        ),
        "layers",
    ),
    # A Fourier transform mixes the whole row, padding included.
    "fnet": (
        lambda: hf.FNetConfig(**{k: v for k, v in _SIZES.items() if "heads" not in k}),
        "encoder.layer",
    ),
    # A short text replaces the sparse attention for good.
    "big_bird": (
        lambda: hf.BigBirdConfig(**_SIZES, block_size=4, num_random_blocks=1),
        "encoder.layer",
    ),
    # Rotary factors depend on the longest text so far, and of a pass.
    "llama, dynamic": (
        lambda: hf.LlamaConfig(
            **{**_GROUPED, "max_position_embeddings": 24},
            rope_parameters={
                "rope_type": "dynamic",
                "rope_theta": 1e4,
                "factor": 8.0,
            },
        ),
        "layers",
    ),
}


@pytest.fixture(scope="module")
def folders(
    save_model: Callable[..., str], byte_tokenizer: Callable[..., object]
) -> dict[str, str]:
    return {
        name: save_model(build(), byte_tokenizer())
        for name, (build, _) in FAMILIES.items()
    }


def run_alone(folder: str, blocks: str, text: str) -> list[Tensor]:
    """Run one text through a model fresh from its files; gives each block's output."""
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    model = hf.AutoModel.from_pretrained(folder).eval()
    outputs: list[Tensor] = []
    for block in model.get_submodule(blocks):
        block.register_forward_hook(
            lambda _, __, output: outputs.append(
                output if isinstance(output, Tensor) else output[0]
            )
        )
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    with torch.no_grad():
        model(input_ids=ids)
    # BigBird fills its blocks up.
    return [output[0, : ids.shape[1]] for output in outputs]


@pytest.mark.parametrize("name", FAMILIES)
def test_texts_have_the_states_that_they_have_alone(
    folders: dict[str, str], name: str
) -> None:
    folder, blocks = folders[name], FAMILIES[name][1]
    # In small batches a prefix that several texts share is worth a pass of its own.
    transformer = HFEmbeddingTransformer(
        folder, pooling="mean", batch_tokens=128, device="cpu"
    )
    found = transformer.fit_transform(TEXTS)
    for row, text in enumerate(TEXTS):
        for layer, states in enumerate(run_alone(folder, blocks, text)):
            expected = states.mean(dim=0).numpy()
            error = np.linalg.norm(found[row, layer, 0] - expected)
            assert error < 2e-5 * np.linalg.norm(expected)


def count_tokens(
    folder: str, batch_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> int:
    """Count the tokens that the texts' own passes take, padding included."""
    model_class = type(hf.AutoModel.from_pretrained(folder))
    forward, sizes = model_class.forward, []

    # Its arguments' names tell how to give it a cache.
    @functools.wraps(forward)
    def spy(self: object, *arguments: object, **inputs: Tensor) -> object:
        sizes.append(inputs["input_ids"].numel())
        return forward(self, *arguments, **inputs)

    transformer = HFEmbeddingTransformer(
        folder, batch_tokens=batch_tokens, device="cpu"
    ).fit(TEXTS)
    release_models()
    # The first texts let the model be tried.
    transformer.transform(TEXTS[:1])
    with monkeypatch.context() as patched:
        patched.setattr(model_class, "forward", spy)
        transformer.transform(TEXTS)
    return sum(sizes)


def count_prefixes(folder: str) -> tuple[int, int]:
    """Count the distinct prefixes of the texts, in tokens, and all their tokens."""
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    ids = [tuple(tokenizer(text)["input_ids"]) for text in TEXTS]
    prefixes = {one[:n] for one in ids for n in range(1, len(one) + 1)}
    return len(prefixes), sum(map(len, ids))


def test_prefixes_that_texts_share_run_once_where_that_is_exact(
    folders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    n_prefixes, n_tokens = count_prefixes(folders["llama"])
    assert count_tokens(folders["llama"], 4096, monkeypatch) < 1.3 * n_prefixes
    assert n_tokens > 2 * n_prefixes


@pytest.mark.parametrize("name", ["bloom", "mistral", "qwen3_next"])
def test_long_prefix_runs_once_where_only_its_cache_is_exact(
    folders: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, n_tokens = count_prefixes(folders[name])
    assert count_tokens(folders[name], 128, monkeypatch) < 0.6 * n_tokens


def test_encoder_runs_each_text_whole(
    folders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, n_tokens = count_prefixes(folders["bert"])
    assert count_tokens(folders["bert"], 4096, monkeypatch) >= n_tokens


def test_a_model_is_tried_once(
    folders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    release_models()
    passes: list[int] = []
    forward = hf.LlamaModel.forward

    # Its arguments' names tell how to give it a cache.
    @functools.wraps(forward)
    def spy(self: object, *arguments: object, **inputs: object) -> object:
        passes.append(1)
        return forward(self, *arguments, **inputs)

    monkeypatch.setattr(hf.LlamaModel, "forward", spy)
    counts = []
    for layers in ([0], [2]):
        passes.clear()
        embedder = HFEmbeddingTransformer(folders["llama"], layers=layers, device="cpu")
        embedder.fit_transform(["Gold!"])
        counts.append(len(passes))
    assert counts[0] > counts[1] == 1


def test_slow_but_exact_passes_are_explained(
    folders: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("llama", "bert"):
        HFEmbeddingTransformer(folders[name], device="cpu", verbose=True).fit_transform(
            np.array(["Gold!"])
        )
    told = capsys.readouterr().err
    assert "not exact for bert" in told
    assert "not exact for llama" not in told
