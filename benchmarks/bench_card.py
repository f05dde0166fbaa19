"""Measure how fast texts become activations on a graphics card.

Called by ``bench_embedding.py --device cuda``: a random Llama of a billion parameters
in bfloat16, all 16 layers and 3 parts.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median
from time import perf_counter

import numpy as np
import torch
from random_llama import BILLION, draw_texts, save_random_llama
from transformers import AutoModel, AutoTokenizer

from plug_sklearn import HFEmbeddingTransformer
from plug_sklearn.embedding import _language_model
from plug_sklearn.embedding.passes import Strategy, choose_strategy

PARTS = ("rs", "attn", "mlp")
#: Rows of the padded pass that is compared.
ROWS = 32


@dataclass
class Card:
    """A device, and a model of a shape on it."""

    model: str
    device: str
    shape: dict[str, int]

    def embed(self, texts: list[str], **parameters: object) -> np.ndarray:
        """Embed texts, all layers and parts."""
        embedder = HFEmbeddingTransformer(
            self.model,
            parts=PARTS,
            device=self.device,
            dtype="bfloat16",
            **parameters,
        )
        return embedder.fit_transform(texts)

    def time(self, run: Callable[[], object], repeats: int = 5) -> float:
        """Time a call in seconds, the card's work included: the median of several."""
        times = []
        run()
        for _ in range(repeats):
            self.wait()
            start = perf_counter()
            run()
            self.wait()
            times.append(perf_counter() - start)
        return median(times)

    def wait(self) -> None:
        """Wait until the card has done all it was given."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def count_operations(self, n_tokens: int) -> int:
        """Count the operations of the weights' products, attention itself left out."""
        hidden, shape = self.shape["hidden_size"], self.shape
        head = hidden // shape["num_attention_heads"]
        attention = 2 * hidden + 2 * head * shape["num_key_value_heads"]
        weights = hidden * (attention + 3 * shape["intermediate_size"])
        return 2 * n_tokens * weights * shape["num_hidden_layers"]


def pad_and_copy(card: Card, texts: list[str]) -> Callable[[], None]:
    """Make the plain loop: padded batches, all hidden states, copied whole."""
    tokenizer = AutoTokenizer.from_pretrained(card.model)
    tokenizer.pad_token = tokenizer.unk_token
    model = AutoModel.from_pretrained(card.model, dtype=torch.bfloat16)
    model = model.to(card.device).eval()

    def run() -> None:
        with torch.inference_mode():
            for start in range(0, len(texts), ROWS):
                inputs = tokenizer(
                    texts[start : start + ROWS],
                    padding=True,
                    return_tensors="pt",
                    return_token_type_ids=False,
                ).to(card.device)
                output = model(**inputs, output_hidden_states=True)
                _ = [states.float().cpu() for states in output.hidden_states]

    return run


def measure_card(
    device: str, shape: dict[str, int] = BILLION, n_texts: int = 512
) -> list[tuple[str, str, float, float, float]]:
    """Measure the rows of the table: work, against, ours, theirs (in s) and goal."""
    with tempfile.TemporaryDirectory() as folder:
        card = Card(save_random_llama(folder, shape), device, shape)
        longest = draw_texts(np.full(n_texts // 4, 512), seed=1)
        rate = card.count_operations(512 * len(longest)) / card.time(
            lambda: card.embed(longest)
        )
        size = 8192 if device == "cuda" else 512
        a, b = torch.randn(2, size, size).to(device, torch.bfloat16)
        product = card.time(lambda: [a @ b for _ in range(20)])
        peak = 20 * 2 * size**3 / product
        lengths = np.random.default_rng(0).integers(32, 513, n_texts)
        mixed = draw_texts(lengths)
        rows = [
            (
                "useful operations on 512-token prompts, per second",
                "a bfloat16 matrix product",
                1 / rate,
                1 / peak,
                0.5,
            ),
            (
                f"{n_texts} prompts of 32 to 512 tokens",
                f"padded batches of {ROWS}, hidden states copied whole",
                card.time(lambda: card.embed(mixed)),
                card.time(pad_and_copy(card, mixed)),
                5,
            ),
        ]
        (preamble,) = draw_texts([400], seed=2)
        asked = draw_texts(np.full(n_texts, 16), seed=3)
        template = preamble + " {text}"
        ours = card.time(lambda: card.embed(asked, prompt_template=template))
        _language_model.choose_strategy = lambda forward: replace(
            choose_strategy(forward), strategy=Strategy.PADDED
        )
        theirs = card.time(lambda: card.embed(asked, prompt_template=template))
        _language_model.choose_strategy = choose_strategy
        rows.append(
            (
                f"{n_texts} questions behind one 400-token few-shot prompt",
                "our own padded path",
                ours,
                theirs,
                8,
            )
        )
    return rows
