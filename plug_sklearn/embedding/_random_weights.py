"""Replace the weights of an embedder's model by random ones, within a context."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any
from uuid import uuid4

import numpy as np
import torch
import transformers
from sklearn.base import clone
from sklearn.utils import check_random_state
from transformers import PreTrainedModel

from plug_sklearn.embedding._transformer import HFEmbeddingTransformer
from plug_sklearn.embedding.models import (
    load_config,
    load_tokenizer,
    register_model,
    unregister_model,
)

#: Parameters about the trained weights, and how they are downloaded and stored.
OF_TRAINED_WEIGHTS = {
    "adapter": None,
    "attn_implementation": None,
    "dtype": "auto",
    "model_kwargs": None,
    "quantization": None,
    "revision": None,
    "store": None,
}


@contextmanager
def with_random_weights(
    embedder: HFEmbeddingTransformer,
    random_state: int | np.random.RandomState | None = None,
) -> Iterator[HFEmbeddingTransformer]:
    """Make an embedder with random weights, for use in a ``with`` statement.

    The model has the same configuration, tokenizer, device and dtype. Its weights are
    initialised as they were before training. A probe on such a model shows what can be
    read without anything that the model has learnt.

    Parameters
    ----------
    embedder : HFEmbeddingTransformer
        The embedder. It is not changed, and the weights of its model are not loaded.
    random_state : int, RandomState instance or None, default=None
        Seed of the weights. The global generators are left as they were.

    Yields
    ------
    HFEmbeddingTransformer
        An unfitted embedder with the same parameters, except that it has no adapter,
        quantization or store. Its weights are freed at the end of the ``with``
        statement, and it cannot be used afterwards.

    Raises
    ------
    TypeError
        If ``embedder`` is not an :class:`HFEmbeddingTransformer`.
    ValueError
        If a parameter of the embedder is invalid.

    See Also
    --------
    plug_sklearn.probe_controls : Compares a probe with one on random weights.

    Examples
    --------
    >>> from plug_sklearn import HFEmbeddingTransformer
    >>> from plug_sklearn.embedding import with_random_weights
    >>> embedder = HFEmbeddingTransformer("Qwen/Qwen3-0.6B", layers=[10])
    >>> with with_random_weights(embedder, random_state=0) as untrained:
    ...     activations = untrained.fit_transform(["Gold."])  # doctest: +SKIP
    """
    if not isinstance(embedder, HFEmbeddingTransformer):
        raise TypeError(
            "The 'embedder' parameter of with_random_weights must be an "
            f"HFEmbeddingTransformer. Got {type(embedder).__name__} instead."
        )
    seed = int(check_random_state(random_state).randint(2**31))
    # This only reads the configuration.
    plain = clone(embedder).set_params(generation_prompt=False)
    fitted = plain.fit(["text"])
    name = f"random weights {uuid4().hex}"
    register_model(name, _draw_model(fitted, seed), load_tokenizer(fitted._source))
    try:
        yield clone(embedder).set_params(model_name=name, **OF_TRAINED_WEIGHTS)
    finally:
        unregister_model(name)


def _draw_model(fitted: HFEmbeddingTransformer, seed: int) -> PreTrainedModel:
    """Build a model of the embedder's configuration, with seeded random weights."""
    source, weights = fitted._source, fitted._describe_weights()
    config = deepcopy(load_config(source))
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    arguments = {"dtype": weights.dtype, "trust_remote_code": source.trust_remote_code}
    if weights.attn_implementation is not None:
        arguments["attn_implementation"] = weights.attn_implementation
    # transformers leaves this untyped.
    auto: Any = transformers.AutoModel
    # Weights are drawn on the CPU, so that they are the same on every device.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        drawn = auto.from_config(config, **arguments)
    model: PreTrainedModel = drawn.eval().requires_grad_(False).to(weights.device)
    return model
