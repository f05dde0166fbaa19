"""Run prompts through a model, by the fastest strategy that is exact.

``_strategy``, ``_trial_memory``
    Which strategy is exact for a model, found by a trial; what earlier trials found.
``_reading``
    Many prompts to activations, batch by batch, with each strategy.
``_batching``, ``_prefixes``
    The arrays of one pass, and the prefixes that prompts share.
``_forward``, ``_capture``
    One forward pass, and the hooks that read during it.
``_pooling``
    How the tokens of a prompt become one vector.
"""

from plug_sklearn.embedding.passes._batching import Batch, pad_prompts
from plug_sklearn.embedding.passes._capture import Capture, PoolsTokens, Request
from plug_sklearn.embedding.passes._forward import ForwardPass, NonFiniteStatesError
from plug_sklearn.embedding.passes._prefixes import SharedPrefix, sort_prompts
from plug_sklearn.embedding.passes._reading import (
    Strategy,
    read_activations,
    read_after_prefixes,
    read_padded,
    read_tries,
)
from plug_sklearn.embedding.passes._strategy import Trial, choose_strategy

__all__ = [
    "Batch",
    "Capture",
    "ForwardPass",
    "NonFiniteStatesError",
    "PoolsTokens",
    "Request",
    "SharedPrefix",
    "Strategy",
    "Trial",
    "choose_strategy",
    "pad_prompts",
    "read_activations",
    "read_after_prefixes",
    "read_padded",
    "read_tries",
    "sort_prompts",
]
