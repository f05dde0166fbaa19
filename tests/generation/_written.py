"""Tiny causal models, probes of them, and what a probe says of token ids, naively."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import AutoModelForCausalLM, PreTrainedModel

from plug_sklearn import HFEmbeddingTransformer, LayerAggregator
from plug_sklearn.embedding import describe_model
from plug_sklearn.embedding.anatomy import anatomy_of, find_blocks
from plug_sklearn.embedding.passes import Request
from plug_sklearn.embedding.prompts import TokenizedPrompts

TEXTS = ["The city of Paris", "is in France.", "Gold!", "One, two", "1 2 3", "Au Fe"]
LABELS = [0, 1, 0, 1, 1, 0]
#: Of different lengths.
PROMPTS = ["The city of Lima is in", "Gold has the symbol Au, and iron has", "1 2"]
SAMPLED = {"do_sample": True, "temperature": 3.0}


def fit_probe(model_name: str, **parameters: Any) -> Pipeline:  # noqa: ANN401 - the embedder's
    """Fit a quick probe of all that an embedder reads."""
    parameters = {"layers": [1], "device": "cpu", **parameters}
    probe = make_pipeline(
        HFEmbeddingTransformer(model_name, **parameters),
        LayerAggregator(),
        StandardScaler(),
        LogisticRegression(max_iter=20, C=0.01),
    )
    fitted: Pipeline = probe.fit(TEXTS, LABELS)
    return fitted


def build_causal(config: Any, scale: float = 0.3) -> PreTrainedModel:  # noqa: ANN401 - any configuration
    """Build a random causal model whose words depend on what came before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        for weight in model.parameters():
            weight.data.normal_(0, scale).add_(weight.dim() == 1)
    return model.eval()


def run_blocks(
    model: PreTrainedModel, ids: Sequence[int], layers: Sequence[int]
) -> list[NDArray[np.float32]]:
    """Run token ids as one text, without a cache; gives the output of each layer."""
    backbone = model.base_model
    blocks = find_blocks(backbone, anatomy_of(backbone, None))
    found: list[NDArray[np.float32]] = []
    handles = [
        block.module.register_forward_hook(
            lambda _, __, output, block=block: found.append(
                block.read_stream(output)[0].numpy().copy()
            )
        )
        for block in blocks
    ]
    with torch.no_grad():
        model(input_ids=torch.tensor([list(ids)]), use_cache=False)
    for handle in handles:
        handle.remove()
    return [found[layer] for layer in layers]


POOL: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "last": lambda states: states[-1],
    "first": lambda states: states[0],
    "mean": lambda states: states.mean(axis=0),
    "max": lambda states: states.max(axis=0),
}


def predict_naively(
    probe: Pipeline,
    model: PreTrainedModel,
    ids: Sequence[int],
    pooled: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Give the probabilities of token ids as a text, of which some are pooled.

    All tokens go through the model anew, and the mask chooses among them.
    """
    embedder = probe[0]
    chosen = embedder.pooling
    poolings = [chosen] if isinstance(chosen, str) else chosen
    activations = np.stack(
        [
            [POOL[pooling](states[pooled]) for pooling in poolings]
            for states in run_blocks(model, ids, embedder.layers_)
        ]
    )
    found: NDArray[np.float64] = probe[1:].predict_proba(activations[None])
    return found[0]


def predict_by_embedder(
    probe: Pipeline, ids: Sequence[int], pooled: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Give the probabilities of token ids that the embedder reads as one text."""
    embedder = probe[0]
    chosen = embedder.pooling
    poolings = (chosen,) if isinstance(chosen, str) else chosen
    text = TokenizedPrompts.join([np.array(ids, dtype=np.int32)], [pooled])
    asked = Request(embedder.layers_, tuple(embedder.parts), poolings)
    ((_, activations),) = describe_model(embedder).run(text, asked)
    found: NDArray[np.float64] = probe[1:].predict_proba(activations)
    return found[0]
