"""Layers of several members at once: plain torch modules.

Members are networks of the same shape that train side by side. Their activations are
(n, members, units), so that a layer of all of them is one call. Several probes, each of
as many members, may be side by side in turn: they draw the same masks, and each gets to
the last bit what it would get alone.
"""

from math import log, sqrt

import torch
from torch import Generator, Tensor, nn


class MemberLinear(nn.Module):
    """A linear layer of each member.

    Parameters
    ----------
    n_members, n_in, n_out : int
        Members, and units before and after.
    """

    def __init__(self, n_members: int, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_members, n_in, n_out))
        self.bias = nn.Parameter(torch.empty(n_members, n_out))

    def draw(self, generator: Generator) -> None:
        """Draw weights and biases, uniform within ±1 / sqrt(n_in)."""
        bound = 1 / sqrt(self.weight.shape[1])
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, members or 1, n_in) to (n, members, n_out)."""
        x = x.expand(-1, len(self.weight), -1).transpose(0, 1)
        out = torch.baddbmm(self.spread_bias(x.shape[1]), x, self.weight)
        return out.transpose(0, 1)

    def spread_bias(self, n_rows: int) -> Tensor:
        """Give the bias of each row, (members, n_rows, n_out).

        As a product, whose gradient is one too. That of a broadcast is a sum, which
        torch splits, and so rounds, by how many members there are beside one.
        """
        rows = self.bias.new_ones(1, n_rows, 1).expand(len(self.bias), -1, -1)
        return torch.bmm(rows, self.bias[:, None])


class LinearPath(MemberLinear):
    """A way from inputs to logits beside the network's, closed to begin with.

    Its few units are the first axis of a member's weights, for which torch is several
    times faster.
    """

    def __init__(self, n_members: int, n_in: int, n_out: int) -> None:
        super().__init__(n_members, n_in, n_out)
        self.n_in = n_in
        self.weight = nn.Parameter(torch.empty(n_members, n_out, n_in))

    def draw(self, generator: Generator) -> None:
        """Become zero."""
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, members or 1, n_in) to (n, members, n_out)."""
        x = x.expand(-1, len(self.weight), -1).permute(1, 2, 0)
        out = torch.bmm(self.weight, x).permute(2, 0, 1)
        return out + self.spread_bias(len(out)).transpose(0, 1)


class MemberNorm(nn.BatchNorm1d):
    """Batch norm of each member's units.

    Parameters
    ----------
    n_members, n_units : int
        Members, and units of each.
    """

    def __init__(self, n_members: int, n_units: int) -> None:
        super().__init__(n_members * n_units)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (n, members, units) over n."""
        out: Tensor = super().forward(x.reshape(len(x), -1))
        return out.view(x.shape)


def average_members(logits: Tensor) -> Tensor:
    """Map logits (n, members, n_classes) to those of the mean of the probabilities."""
    n_members = logits.shape[1]
    if n_members == 1:
        return logits[:, 0]
    return logits.log_softmax(dim=2).logsumexp(dim=1) - log(n_members)
