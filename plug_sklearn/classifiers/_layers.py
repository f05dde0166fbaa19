"""Layers of the networks: plain torch modules.

The networks of an ensemble are trained as one module. Their activations have the shape
(n, members, units), so that one call computes a layer of all members.
"""

from collections.abc import Iterable, Sequence
from math import log, prod, sqrt

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy

#: Memory limit of a copy in double precision.
BYTES_AT_ONCE = 2**23
#: Divides the summed losses in the exponent of a weight of the mixture.
SOFTNESS = 4.0
#: Factors of the logits at which the classifiers of a mixture are compared.
FACTORS = tuple(2.0 ** (power / 2) for power in range(-8, 11))


class Dropout(nn.Module):
    """Dropout that draws from ``generator``, or from torch's global one if it is None.

    Axis 1 of the input holds the members of ``n_probes`` probes, which are all given
    the same masks.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.generator: Generator | None = None
        self.n_probes = 1

    def forward(self, x: Tensor) -> Tensor:
        """Zero units at random and rescale the others, in training mode only."""
        if not self.training or self.p == 0:
            return x
        n_rows, n_members, *units = x.shape
        shape = (n_rows, n_members // self.n_probes, *units)
        scale = draw_kept(shape, self.p, x.device, self.generator).to(x.dtype)
        scale.div_(1 - self.p)
        if self.n_probes > 1:
            by_probe = x.reshape(n_rows, self.n_probes, -1, *units)
            scale = scale[:, None]
            # In the memory of the batch, unless a gradient needs it.
            multiply = torch.mul if x.requires_grad else Tensor.mul_
            return multiply(by_probe, scale).flatten(1, 2)
        # In the memory of the mask, unless a gradient needs it.
        return x * scale if x.requires_grad else scale.mul_(x)

    def extra_repr(self) -> str:
        """Show the probability where the module is printed."""
        return f"p={self.p}"

    def __getstate__(self) -> dict[str, object]:
        # Copies and pickles do not share the generator of the training.
        return {**self.__dict__, "generator": None}


def draw_kept(
    shape: Sequence[int], p: float, device: torch.device, generator: Generator | None
) -> Tensor:
    """Draw a boolean mask that is False with probability ``p``.

    On the CPU, ``p`` is rounded to a multiple of 1 / 65,536, and each draw of 64 bits
    gives four units: drawing would otherwise take longer than the layer that follows.
    """
    if device.type != "cpu":
        return torch.rand(shape, generator=generator, device=device).ge_(p).bool()
    n_units = prod(shape)
    draws = torch.empty(-(-n_units // 4), dtype=torch.int64)
    draws.random_(-(2**63), None, generator=generator)
    highest_dropped = max(1, round(p * 2**16)) - 2**15 - 1
    return (draws.view(torch.int16)[:n_units] > highest_dropped).view(shape)


class Standardise(nn.Module):
    """Shift and scale each unit to mean 0 and deviation 1 over the training rows.

    Some units of a residual stream are large and almost constant. Without this layer,
    they would dominate the others. ``mean`` and ``scale`` are buffers of the shape of a
    sample; ``scale`` is 0 for constant units.
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
        """Compute means and deviations in double precision.

        The rows are ``x[places]``, or all of ``x``; ``weight`` (n,) are their weights,
        not all 0.
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
            # Relative to a row that has weight, constant units are exactly 0.
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


class TemperatureScaling(nn.Module):
    """Multiply logits by ``factor``, the inverse of their temperature, in evaluation.

    The factor is 1 until training has ended.
    """

    factor: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", torch.ones(()))

    def reset_parameters(self) -> None:
        """Set the factor to 1."""
        self.factor.fill_(1)

    def forward(self, logits: Tensor) -> Tensor:
        """Scale logits, except in training."""
        return logits if self.training else logits * self.factor


class ZeroInitialised(nn.Module):
    """A layer whose parameters are zero before training."""

    def draw(self, generator: Generator) -> None:
        """Set weights and biases to zero."""
        for parameter in self.parameters():
            nn.init.zeros_(parameter)


class PrincipalComponents(nn.Module):
    """Map units to their principal components, which are computed before training."""

    basis: Tensor

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.register_buffer("basis", torch.eye(n_in, n_out))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., n_in) to (..., n_out)."""
        return x @ self.basis


class MemberLinear(nn.Module):
    """A linear layer of each member."""

    def __init__(self, n_members: int, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_members, n_in, n_out))
        self.bias = nn.Parameter(torch.empty(n_members, n_out))

    def draw(self, generator: Generator) -> None:
        """Draw weights and biases uniformly within ±1 / sqrt(n_in)."""
        bound = 1 / sqrt(self.weight.shape[1])
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, members or 1, n_in) to (n, members, n_out)."""
        x = x.expand(-1, len(self.weight), -1).transpose(0, 1)
        out = torch.baddbmm(self.repeat_bias(x.shape[1]), x, self.weight)
        return out.transpose(0, 1)

    def repeat_bias(self, n_rows: int) -> Tensor:
        """Repeat the bias for each row: (members, n_rows, n_out).

        This is a matrix product, so that its gradient is one too. The gradient of a
        broadcast is a sum, whose rounding depends on the number of members.
        """
        rows = self.bias.new_ones(1, n_rows, 1).expand(len(self.bias), -1, -1)
        return torch.bmm(rows, self.bias[:, None])


class LinearPath(ZeroInitialised, MemberLinear):
    """A linear map from inputs to logits, initialised to zero.

    The logits are the first axis of a member's weights, for which torch is several
    times faster.
    """

    def __init__(self, n_members: int, n_in: int, n_out: int) -> None:
        super().__init__(n_members, n_in, n_out)
        self.n_in = n_in
        self.weight = nn.Parameter(torch.empty(n_members, n_out, n_in))

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, members or 1, n_in) to (n, members, n_out)."""
        x = x.expand(-1, len(self.weight), -1).permute(1, 2, 0)
        out = torch.bmm(self.weight, x).permute(2, 0, 1)
        return out + self.repeat_bias(len(out)).transpose(0, 1)


class LayerProbes(ZeroInitialised):
    """A linear probe of each layer, of each member, initialised to zero."""

    def __init__(
        self, n_members: int, n_layers: int, n_in: int, n_classes: int
    ) -> None:
        super().__init__()
        self.n_in = n_in
        self.weight = nn.Parameter(torch.empty(n_members, n_in, n_layers, n_classes))
        self.bias = nn.Parameter(torch.empty(n_members, n_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, members or 1, layers, n_in) to (n, members, layers, n_classes)."""
        logits = x.permute(1, 2, 0, 3) @ self.weight.transpose(1, 2)
        return logits.permute(2, 0, 1, 3) + self.bias[:, None]


class MemberNorm(nn.BatchNorm1d):
    """Batch norm of each member's units."""

    def __init__(self, n_members: int, n_units: int) -> None:
        super().__init__(n_members * n_units)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (n, members, units) over n."""
        out: Tensor = super().forward(x.reshape(len(x), -1))
        return out.view(x.shape)


class Mixture(nn.Module):
    """A weighted mean of the logits of several classifiers.

    ``weight`` (n_classifiers,) is a buffer that sums to 1. It is uniform until
    ``learn``.
    """

    weight: Tensor

    def __init__(self, n_classifiers: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.empty(n_classifiers))

    def reset_parameters(self) -> None:
        """Set the same weight for all classifiers."""
        self.weight.fill_(1 / len(self.weight))

    def learn(self, logits: Tensor, codes: Tensor, weights: Tensor) -> None:
        r"""Set the weights from the losses on held-out rows.

        The weight of classifier k is proportional to :math:`\exp(-L_k / 4)`, where
        :math:`L_k` is its summed log loss with the best of a few temperatures.

        ``logits`` has the shape (n, n_classifiers, n_classes); ``codes`` and
        ``weights``, the shape (n,). Rows without a class are ignored.

        References
        ----------
        Dalalyan and Tsybakov, "Aggregation by exponential weighting, sharp PAC-Bayesian
        bounds and sparsity", 2008, section 1.
        """
        by_class = logits.cpu().double().movedim(-1, 1)
        targets = codes.cpu()[:, None].expand(-1, logits.shape[1])
        row_weights = weights.cpu().double()
        losses = [
            row_weights @ cross_entropy(by_class * factor, targets, reduction="none")
            for factor in FACTORS
        ]
        least = torch.stack(losses).amin(dim=0)
        self.weight.copy_((-least / SOFTNESS).softmax(dim=0))

    def forward(self, logits: Tensor) -> Tensor:
        """Map (..., n_classifiers, n_classes) to (..., n_classes)."""
        return (logits * self.weight[:, None]).sum(dim=-2)


def weigh_mixture(
    network: nn.Module,
    mixture: Mixture,
    held_out: Iterable[tuple[Tensor, tuple[Tensor, Tensor]]],
) -> None:
    """Set the weights of a network's mixture from held-out rows.

    The network is in evaluation mode; its third output holds the logits of each
    classifier.
    """
    logits, codes, weights = [], [], []
    with torch.inference_mode():
        for x, (code, weight) in held_out:
            each = network(x)[2]
            logits.append(each.flatten(end_dim=1))
            # A row that all members predict counts once in total.
            share = weight.view(len(x), -1) * (weight.numel() / len(logits[-1]))
            codes.append(code.view(len(x), -1).expand(each.shape[:2]).flatten())
            weights.append(share.expand(each.shape[:2]).flatten())
        mixture.learn(torch.cat(logits), torch.cat(codes), torch.cat(weights))


def average_members(logits: Tensor) -> Tensor:
    """Map logits (n, members, n_classes) to those of the mean of the probabilities."""
    n_members = logits.shape[1]
    if n_members == 1:
        return logits[:, 0]
    return logits.log_softmax(dim=2).logsumexp(dim=1) - log(n_members)
