"""Whatever texts share a pass, each has the states that it has when it runs alone.

Every family here makes some way of sharing wrong: token tries, cached prefixes,
padding, or what a text leaves behind in the model.
"""

import functools
import shutil
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from torch import Tensor, nn
from transformers.models.llama import modeling_llama

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
    # Rotary factors are others for all texts of a pass that holds a long one.
    "phi3, longrope": (
        lambda: hf.Phi3Config(
            **{k: v for k, v in _GROUPED.items() if k != "head_dim"},
            rope_parameters={
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "short_factor": [1.0] * 4,
                "long_factor": [4.0] * 4,
                "original_max_position_embeddings": 16,
            },
            original_max_position_embeddings=16,
        ),
        "layers",
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
    found = model.get_submodule(blocks)
    for block in found if isinstance(found, nn.ModuleList) else [found]:
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
    # In small batches a prefix that several texts share is worth a pass of its own;
    # in large ones long texts and short ones run together.
    small, large = (
        HFEmbeddingTransformer(
            folder, pooling="mean", batch_tokens=batch_tokens, device="cpu"
        ).fit_transform(TEXTS)
        for batch_tokens in (128, 4096)
    )
    for row, text in enumerate(TEXTS):
        for layer, states in enumerate(run_alone(folder, blocks, text)):
            expected = states.mean(dim=0).numpy()
            assert relative_error(small[row, layer, 0], expected) < 2e-5
            assert relative_error(large[row, layer, 0], expected) < 2e-5


def relative_error(found: np.ndarray, expected: object) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def count_tokens(
    folder: str,
    batch_tokens: int,
    monkeypatch: pytest.MonkeyPatch,
    texts: Sequence[str] = TEXTS,
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
    ).fit(texts)
    release_models()
    # The first text lets the model be tried.
    transformer.transform(texts[:1])
    with monkeypatch.context() as patched:
        patched.setattr(model_class, "forward", spy)
        transformer.transform(texts)
    return sum(sizes)


def count_prefixes(folder: str, texts: Sequence[str] = TEXTS) -> tuple[int, int]:
    """Count the distinct prefixes of the texts, in tokens, and all their tokens."""
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    ids = [tuple(tokenizer(text)["input_ids"]) for text in texts]
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


Inputs = dict[str, Any]


def forget_cache(inputs: Inputs) -> None:
    """Read what follows a cached prefix as if nothing came before."""
    cache = inputs.get("cache")
    if cache is not None and cache.get_seq_length():
        inputs["cache"] = None
        mask = inputs.get("attention_mask")
        if mask is not None:
            inputs["attention_mask"] = mask[..., -inputs["input_ids"].shape[1] :]


def forget_mask(inputs: Inputs) -> None:
    """Let each node of a trie attend to all nodes before it, but not after a cache."""
    mask, cache = inputs.get("attention_mask"), inputs.get("cache")
    if mask is not None and mask.dim() == 4 and cache is None:
        inputs["attention_mask"] = None


def forget_mask_after_cache(inputs: Inputs) -> None:
    mask, cache = inputs.get("attention_mask"), inputs.get("cache")
    if mask is not None and mask.dim() == 4 and cache is not None:
        inputs["attention_mask"] = None


def forget_positions(inputs: Inputs) -> None:
    """Count positions in the row, and not in the trie."""
    inputs["position_ids"] = None


@pytest.mark.parametrize(
    "fault", [forget_cache, forget_mask, forget_mask_after_cache, forget_positions]
)
def test_whatever_a_model_s_code_ignores_is_found_out(
    folders: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[Inputs], None],
) -> None:
    folder = folders["llama"]
    # So many that several tries come after the prefix that all share.
    texts = [*TEXTS, *(f"{SHOTS}{n} is {n + 1}" for n in range(10, 50))]
    alone = [run_alone(folder, "layers", text) for text in texts]
    forward = hf.LlamaModel.forward

    @functools.wraps(forward)
    def ignore(self: object, *arguments: object, **inputs: object) -> object:
        fault(inputs)
        return forward(self, *arguments, **inputs)

    monkeypatch.setattr(hf.LlamaModel, "forward", ignore)
    release_models()
    found = HFEmbeddingTransformer(
        folder, pooling="mean", batch_tokens=128, device="cpu"
    ).fit_transform(texts)
    release_models()
    expected = [[layer.mean(dim=0).numpy() for layer in layers] for layers in alone]
    assert relative_error(found[:, :, 0], expected) < 2e-5


def test_a_fault_of_the_deepest_layer_alone_is_found_out(
    folders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folders["llama"]
    alone = [run_alone(folder, "layers", text)[2].mean(dim=0).numpy() for text in TEXTS]
    run_layer = modeling_llama.LlamaDecoderLayer.forward

    @functools.wraps(run_layer)
    def ignore(self: nn.Module, *arguments: object, **inputs: Tensor) -> object:
        mask = inputs.get("attention_mask")
        if self.self_attn.layer_idx == 2 and mask is not None:
            # A trie's mask differs from that of a row, in which tokens follow another.
            n_tokens = mask.shape[-2]
            row = torch.ones(n_tokens, n_tokens, dtype=torch.bool).triu(1)
            row = torch.zeros(1, 1, n_tokens, n_tokens).masked_fill(row, -1e30)
            inputs["attention_mask"] = row if mask.is_floating_point() else mask
        return run_layer(self, *arguments, **inputs)

    monkeypatch.setattr(modeling_llama.LlamaDecoderLayer, "forward", ignore)
    release_models()
    found = HFEmbeddingTransformer(
        folder, layers=[2], pooling="mean", device="cpu"
    ).fit_transform(TEXTS)
    release_models()
    assert relative_error(found[:, 0, 0], alone) < 2e-5


def test_attention_too_faint_for_the_residual_stream_is_compared(
    folders: dict[str, str], tmp_path: Path
) -> None:
    """In tries, BERT's would be wrong, and its residual stream right to rounding."""
    model = hf.AutoModel.from_pretrained(folders["bert"])
    path = "encoder.layer.0.attention.output.dense"
    dense = model.get_submodule(path)
    dense.weight.data.mul_(1e-9)
    dense.bias.data.zero_()
    shutil.copytree(folders["bert"], tmp_path / "faint")
    folder = str(tmp_path / "faint")
    model.save_pretrained(folder)
    embedder = HFEmbeddingTransformer(
        folder, layers=[0], parts=["attn"], pooling="mean", device="cpu"
    )
    found = embedder.fit_transform(TEXTS)[:, 0, 0]
    alone = [run_alone(folder, path, text)[0] for text in TEXTS]
    expected = [states.mean(dim=0).numpy() for states in alone]
    assert relative_error(found, expected) < 1e-4


@pytest.mark.parametrize("name", ["mistral", "llama, dynamic", "phi3, longrope"])
def test_short_texts_share_tries_where_only_long_ones_may_not(
    folders: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = [text for text in TEXTS if not text.startswith(SHOTS)]
    _, n_tokens = count_prefixes(folders[name], short)
    assert count_tokens(folders[name], 4096, monkeypatch, short) < 0.8 * n_tokens


def test_rotary_factors_follow_each_text_s_own_length(
    folders: dict[str, str],
) -> None:
    folder = folders["llama, dynamic"]
    letters = string.ascii_letters + string.digits
    texts = [letters, letters[:34], letters[:24], letters[:50]]
    embedder = HFEmbeddingTransformer(folder, pooling="mean", device="cpu").fit(texts)
    for batch in (texts, texts[::-1], texts[2:3], texts):
        found = embedder.transform(batch)
        for row, text in enumerate(batch):
            expected = [
                states.mean(dim=0).numpy()
                for states in run_alone(folder, "layers", text)
            ]
            assert relative_error(found[row, :, 0], expected) < 2e-5
