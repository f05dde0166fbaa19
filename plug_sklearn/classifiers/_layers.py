"""Layers of the networks that have no weights to train: plain torch modules."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Generator, Tensor, nn

#: Bounds the memory of a copy in double precision.
BYTES_AT_ONCE = 2**23


class Dropout(nn.Module):
    """Dropout that can draw from a generator of its own.

    Parameters
    ----------
    p : float
        Probability of zeroing a unit, in [0, 1).

    Attributes
    ----------
    generator : torch.Generator or None
        What masks are drawn from, on the device of the input; None: torch's global
        generator.
    n_probes : int
        Probes that axis 1 of the input holds the members of.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.generator: Generator | None = None
        self.n_probes = 1

    def forward(self, x: Tensor) -> Tensor:
        """Zero units at random and rescale the others, in training mode alone."""
        if not self.training or self.p == 0:
            return x
        n_rows, n_members, *units = x.shape
        shape = (n_rows, n_members // self.n_probes, *units)
        scale = draw_kept(shape, self.p, x.device, self.generator).to(x.dtype)
        scale.div_(1 - self.p)
        if self.n_probes > 1:
            of_probes = x.reshape(n_rows, self.n_probes, -1, *units)
            scale = scale[:, None]
            # In the memory of the batch, unless a gradient is to see it.
            multiply = torch.mul if x.requires_grad else Tensor.mul_
            return multiply(of_probes, scale).flatten(1, 2)
        # In the memory of the mask, unless a gradient is to see it.
        return x * scale if x.requires_grad else scale.mul_(x)

    def extra_repr(self) -> str:
        """Show the probability where the module is printed."""
        return f"p={self.p}"

    def __getstate__(self) -> dict[str, object]:
        # Copies and pickles share no generator with the training that set it.
        return {**self.__dict__, "generator": None}


def draw_kept(
    shape: Sequence[int], p: float, device: torch.device, generator: Generator | None
) -> Tensor:
    """Draw which units dropout keeps.

    Parameters
    ----------
    shape : sequence of int
        Shape of the units.
    p : float
        Probability of dropping one; on the CPU in whole parts of 65,536.
    device : torch.device
        Where they are.
    generator : torch.Generator or None
        What to draw from.

    Returns
    -------
    Tensor of bool
    """
    if device.type != "cpu":
        return torch.rand(shape, generator=generator, device=device).ge_(p).bool()
    # Four units of a draw: drawing takes longer than the layer that follows.
    n_units = prod(shape)
    draws = torch.empty(-(-n_units // 4), dtype=torch.int64)
    draws.random_(-(2**63), None, generator=generator)
    highest_dropped = max(1, round(p * 2**16)) - 2**15 - 1
    return (draws.view(torch.int16)[:n_units] > highest_dropped).view(shape)


class Standardise(nn.Module):
    """Shift and scale each unit to mean 0 and deviation 1 over the training rows.

    Some units of a residual stream are large and all but constant: without this they
    drown the others. Mean and scale are buffers: kept with the weights, not trained.

    Parameters
    ----------
    shape : tuple of int
        Shape of a sample.

    Attributes
    ----------
    mean : Tensor of shape ``shape``
        Mean of each unit; 0 before ``learn``.
    scale : Tensor of shape ``shape``
        1 over the deviation of each unit, 0 for a constant one; 1 before ``learn``.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    def reset_parameters(self) -> None:
        """Become the identity."""
        self.mean.zero_()
        self.scale.fill_(1)

    def learn(self, x: Tensor, weight: Tensor, places: Tensor | None = None) -> None:
        """Learn means and deviations, in double precision.

        Parameters
        ----------
        x : Tensor of shape (n_given, ...)
            Samples.
        weight : Tensor of shape (n,)
            Weights of the training rows, not all 0.
        places : Tensor of shape (n,), default=None
            Where in ``x`` the training rows are; None: they are all of it.
        """
        share = weight.detach().cpu().double()
        share = (share / share.sum())[:, None]
        origin = int(share.argmax())
        rows = x.detach().flatten(start_dim=1)
        means, scales = [], []
        n_units = max(1, BYTES_AT_ONCE // (8 * len(rows)))
        for units in torch.split(rows, n_units, dim=1):
            if places is not None:
                units = units.index_select(0, places)
            values = units.cpu().double()
            # Taken from a row that counts, constant units are 0 without rounding.
            offset = values - values[origin]
            mean = (share * offset).sum(0)
            deviation = (share * (offset - mean).square()).sum(0).sqrt()
            means.append(values[origin] + mean)
            varies = deviation > torch.finfo(torch.float32).tiny
            scales.append(torch.where(varies, 1 / deviation, 0.0))
        self.mean.copy_(torch.cat(means).view_as(self.mean))
        self.scale.copy_(torch.cat(scales).view_as(self.scale))

    def forward(self, x: Tensor) -> Tensor:
        """Standardise samples (n, ...)."""
        return (x - self.mean).mul_(self.scale)


class Sharpness(nn.Module):
    """A factor of the logits, found after training: 1 over their temperature.

    Attributes
    ----------
    factor : Tensor of shape ()
        1 before it is found.
    """

    factor: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", torch.ones(()))

    def reset_parameters(self) -> None:
        """Become 1."""
        self.factor.fill_(1)

    def forward(self, logits: Tensor) -> Tensor:
        """Scale logits, outside training."""
        return logits if self.training else logits * self.factor


class Projection(nn.Module):
    """A linear map that is learnt before training, and not trained.

    Parameters
    ----------
    n_in, n_out : int
        Units before and after.
    """

    basis: Tensor

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.register_buffer("basis", torch.eye(n_in, n_out))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., n_in) to (..., n_out)."""
        return x @ self.basis
