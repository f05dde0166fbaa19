"""Pool the states of a prompt's tokens into one vector.

States are pooled on the model's device as soon as a block puts them out, so that those
of single tokens are never kept. Where prompts share a prefix, its pooled states are
joined with those of the tokens that follow.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Numbers = NDArray[np.int64]
States = NDArray[np.float32]


class Pooler:
    """Pools over the kept tokens of each prompt of one batch.

    Parameters
    ----------
    pooling : {"last", "first", "mean", "max"}
        How tokens become one vector.
    tokens : ndarray of shape (n_kept,), int64
        The kept tokens, as positions in the flattened batch, prompt by prompt.
    offsets : ndarray of shape (n_prompts,), int64
        Where each prompt's tokens begin in `tokens`.
    """

    def __init__(self, pooling: str, tokens: Numbers, offsets: Numbers) -> None:
        self.pooling = pooling
        self.picks_one = pooling in ("last", "first")
        if self.picks_one:
            ends = np.append(offsets[1:], len(tokens))
            tokens = tokens[offsets if pooling == "first" else ends - 1]
        #: The tokens that are read.
        self.tokens = torch.from_numpy(tokens)
        self.offsets = torch.from_numpy(offsets)

    def pool(self, states: Tensor) -> Tensor:
        """Map states of shape (n_rows * n_tokens, units) to (n_prompts, units)."""
        tokens = self.tokens.to(states.device)
        if self.picks_one:
            return states[tokens].float()
        offsets = self.offsets.to(states.device)
        return F.embedding_bag(tokens, states.float(), offsets, mode=self.pooling)


def join_pooled(
    pooling: str, prefix: States, n_prefix: int, rest: States, n_rest: Numbers
) -> States:
    """Join what was pooled over a shared prefix with what was pooled after it.

    Parameters
    ----------
    pooling : {"last", "first", "mean", "max"}
        How both were pooled.
    prefix : ndarray of shape (1, n_layers, n_parts, hidden_size), float32
        Pooled over the prefix's kept tokens.
    n_prefix : int
        How many these are, at least one.
    rest : ndarray of shape (n_prompts, n_layers, n_parts, hidden_size), float32
        Pooled over the kept tokens of each prompt after the prefix.
    n_rest : ndarray of shape (n_prompts,), int64
        How many these are, at least one.

    Returns
    -------
    ndarray of the shape of ``rest``, float32
        Pooled over both.
    """
    if pooling == "last":
        return rest
    if pooling == "first":
        return np.broadcast_to(prefix, rest.shape)
    if pooling == "max":
        return np.maximum(prefix, rest)
    weight = (n_prefix / (n_prefix + n_rest)).astype(np.float32)[:, None, None, None]
    joined: States = weight * prefix + (1 - weight) * rest
    return joined
