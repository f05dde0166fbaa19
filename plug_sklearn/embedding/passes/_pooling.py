"""Pool the states of a prompt's tokens into one vector, or keep those of all tokens.

States are pooled on the device of the model, as soon as a block returns them. If
prompts share a prefix, its pooled states are joined with those of the tokens after it.
To add a pooling, add it here and to the names that ``embedding._parameters`` and
``store._requests`` accept.
"""

from collections.abc import Sequence

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
    poolings : sequence of {"last", "first", "mean", "max"}, or None
        How tokens become one vector; None keeps every token.
    tokens : ndarray of shape (n_kept,), int64
        The kept tokens, as positions in the flattened batch, prompt by prompt.
    offsets : ndarray of shape (n_prompts,), int64
        Where each prompt's tokens begin in `tokens`.

    Attributes
    ----------
    read : Tensor of shape (n_read,), int64, or None
        The only tokens whose states are read, where every pooling picks one.
    """

    def __init__(
        self, poolings: Sequence[str] | None, tokens: Numbers, offsets: Numbers
    ) -> None:
        self.poolings = poolings
        self.tokens = torch.from_numpy(tokens)
        self.offsets = torch.from_numpy(offsets)
        # The last token of a prompt is the one before the next prompt's first.
        ends = np.append(offsets[1:], len(tokens))
        picked = {"first": tokens[offsets], "last": tokens[ends - 1]}
        self.picked = {name: torch.from_numpy(ids) for name, ids in picked.items()}
        self.read: Tensor | None = None
        if poolings is not None and set(poolings) <= self.picked.keys():
            self.read = torch.cat([self.picked[name] for name in poolings])

    def pool(self, states: Tensor) -> list[Tensor]:
        """Pool states of shape (n_rows * n_tokens, hidden_size).

        Returns
        -------
        list of Tensor of shape (n_prompts, units), float32
            One for each pooling; or one of shape (n_kept, hidden_size), the kept tokens
            prompt by prompt, where nothing is pooled.
        """
        if self.poolings is None:
            return [states[self.tokens.to(states.device)].float()]
        return [self._pool(states, name) for name in self.poolings]

    def _pool(self, states: Tensor, pooling: str) -> Tensor:
        if pooling in self.picked:
            return states[self.picked[pooling].to(states.device)].float()
        tokens = self.tokens.to(states.device)
        offsets = self.offsets.to(states.device)
        return F.embedding_bag(tokens, states.float(), offsets, mode=pooling)


def join_pooled(
    poolings: Sequence[str] | None,
    prefix: States,
    n_prefix: int,
    rest: States | list[States],
    n_rest: Numbers,
) -> States | list[States]:
    """Join what was pooled over a shared prefix with what was pooled after it.

    Parameters
    ----------
    poolings : sequence of {"last", "first", "mean", "max"}, or None
        How both were pooled; None where every token was kept.
    prefix : ndarray of shape (1, n_layers, n_parts * n_poolings, hidden_size), float32
        Pooled over the prefix's kept tokens; these along axis 0 where nothing was.
    n_prefix : int
        How many these are, at least one.
    rest : ndarray of shape (n_prompts, n_layers, n_parts * n_poolings, hidden_size), \
float32
        Pooled over the kept tokens of each prompt after the prefix; a list of arrays of
        shape (n_tokens, n_layers, n_parts, hidden_size) where nothing was.
    n_rest : ndarray of shape (n_prompts,), int64
        How many these are, at least one.

    Returns
    -------
    ndarray or list of ndarray
        As ``rest``, over both; an array is ``rest`` itself, changed.
    """
    if not isinstance(rest, np.ndarray):
        return [np.concatenate([prefix, after]) for after in rest]
    shares = (n_prefix / (n_prefix + n_rest)).astype(np.float32)
    weight = torch.from_numpy(shares)[:, None, None, None]
    for number, pooling in enumerate(poolings or ()):
        # Each part holds all poolings, one after the other. All is done in place: the
        # array may be large.
        mine = np.s_[:, :, number :: len(poolings or ())]
        before, after = prefix[mine], rest[mine]
        if pooling == "first":
            after[...] = before
        elif pooling == "max":
            np.maximum(before, after, out=after)
        elif pooling == "mean":
            torch.from_numpy(after).lerp_(torch.from_numpy(before), weight)
    return rest
