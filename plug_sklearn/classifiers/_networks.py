"""The networks: plain torch modules."""

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Generator, Tensor, nn

#: Bounds the memory of a copy in double precision.
UNITS_AT_ONCE = 1024


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
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.generator: Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Zero units at random and rescale the others, in training mode alone."""
        if not self.training or self.p == 0:
            return x
        kept = torch.rand(
            x.shape, generator=self.generator, dtype=x.dtype, device=x.device
        ).ge_(self.p)
        return x * kept.div_(1 - self.p)

    def extra_repr(self) -> str:
        """Show the probability where the module is printed."""
        return f"p={self.p}"

    def __getstate__(self) -> dict[str, object]:
        # Copies and pickles share no generator with the training that set it.
        return {**self.__dict__, "generator": None}


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

    def learn(self, x: Tensor, weight: Tensor) -> None:
        """Learn means and deviations, in double precision.

        Parameters
        ----------
        x : Tensor of shape (n, ...)
            Training rows.
        weight : Tensor of shape (n,)
            Their weights, not all 0.
        """
        share = weight.detach().cpu().double()
        share = (share / share.sum())[:, None]
        origin = int(share.argmax())
        rows = x.detach().flatten(start_dim=1)
        means, scales = [], []
        for units in torch.split(rows, UNITS_AT_ONCE, dim=1):
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
        return (x - self.mean) * self.scale


class MLPNetwork(nn.Module):
    """Two blocks, a residual block, and a linear layer on a narrow last block.

    Features are standardised first.

    Parameters
    ----------
    n_features, n_classes : int
        Features of a sample, and logits.
    first, second, last : int
        Units of the blocks.
    dropout : float
        Probability of dropping a unit after each block.
    """

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        *,
        first: int,
        second: int,
        last: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.standardise = Standardise((n_features,))
        self.entry = nn.Sequential(
            _block(n_features, first, dropout), _block(first, second, dropout)
        )
        self.residual = nn.Sequential(
            _block(second, second, dropout), nn.Linear(second, second)
        )
        self.head = _block(second, last, dropout)
        self.output = nn.Linear(last, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map samples of any shape, (n, ...), to logits (n, n_classes)."""
        x = self.entry(self.standardise(x.flatten(start_dim=1)))
        logits: Tensor = self.output(self.head(x + self.residual(x)))
        return logits


class CNNNetwork(nn.Module):
    """Convolutions along the hidden units, with the layers as channels.

    Each unit of each layer and part is standardised first.

    Parameters
    ----------
    n_layers, n_parts, hidden_size : int
        Shape of a sample.
    n_classes : int
        Logits.
    first, second, projection, head : int
        Channels of the convolutions and units of the head's hidden layer.
    dropout : float
        Probability of dropping a unit of the projection and within the head.
    normalise : bool
        Apply LayerNorm to the hidden units of each layer and part.
    """

    def __init__(
        self,
        n_layers: int,
        n_parts: int,
        hidden_size: int,
        n_classes: int,
        *,
        first: int,
        second: int,
        projection: int,
        head: int,
        dropout: float,
        normalise: bool = True,
    ) -> None:
        super().__init__()
        self.sample_shape: tuple[int, ...] = (n_layers, n_parts, hidden_size)
        self.norm = nn.LayerNorm(hidden_size) if normalise else nn.Identity()
        if n_parts == 1:
            convolutions = _convolve_units(n_layers, first, second, projection)
            self.sample_shape = (n_layers, hidden_size)
        else:
            convolutions = _convolve_parts(n_layers, n_parts, first, second, projection)
        self.standardise = Standardise(self.sample_shape)
        self.encoder = nn.Sequential(*convolutions, nn.Flatten(), Dropout(dropout))
        self.head = nn.Sequential(
            nn.Linear(projection, projection),
            nn.ReLU(),
            Dropout(dropout),
            nn.Linear(projection, head),
            nn.ReLU(),
            Dropout(dropout),
        )
        self.output = nn.Linear(head, n_classes)

    def project(self, x: Tensor) -> Tensor:
        """Map samples (n, ...) to their projections z, (n, projection)."""
        x = self.standardise(x.reshape(len(x), *self.sample_shape))
        z: Tensor = self.encoder(self.norm(x))
        return z

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map samples (n, ...) to logits (n, n_classes), and projections z."""
        z = self.project(x)
        return self.output(self.head(z)), z


def initialise_parameters(
    module: MLPNetwork | CNNNetwork,
    generator: Generator,
    class_shares: Sequence[float] | None = None,
) -> None:
    """Draw a module's parameters in place, from a generator and nothing else.

    Weights and biases of linear layers and convolutions are uniform within
    ±1 / sqrt(fan in), as torch's own; norms and standardising start as the identity.

    Parameters
    ----------
    module : MLPNetwork or CNNNetwork
        On the device of ``generator``; its memory may be uninitialised.
    generator : torch.Generator
        What to draw from.
    class_shares : sequence of float, default=None
        Probability of each class that the logits start from, in place of a drawn bias.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
            bound = 1 / sqrt(layer.weight[0].numel())
            for parameter in layer.parameters(recurse=False):
                nn.init.uniform_(parameter, -bound, bound, generator=generator)
        elif isinstance(
            layer, Standardise | nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm
        ):
            layer.reset_parameters()
    if class_shares is not None:
        shares = torch.tensor(class_shares, dtype=torch.float64).clamp(min=1e-6)
        with torch.no_grad():
            module.output.bias.copy_(shares.log())


def _block(n_in: int, n_out: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(n_in, n_out), nn.BatchNorm1d(n_out), nn.ReLU(), Dropout(dropout)
    )


def _convolve_units(
    n_layers: int, first: int, second: int, projection: int
) -> list[nn.Module]:
    return [
        nn.Conv1d(n_layers, first, 5, padding=2),
        nn.BatchNorm1d(first),
        nn.ReLU(),
        nn.Conv1d(first, second, 3, padding=1),
        nn.BatchNorm1d(second),
        nn.ReLU(),
        nn.Conv1d(second, projection, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
    ]


def _convolve_parts(
    n_layers: int, n_parts: int, first: int, second: int, projection: int
) -> list[nn.Module]:
    height = min(n_parts, 3)
    return [
        nn.Conv2d(n_layers, first, (height, 5), padding=(height // 2, 2)),
        nn.BatchNorm2d(first),
        nn.ReLU(),
        nn.Conv2d(first, second, 1),
        nn.BatchNorm2d(second),
        nn.ReLU(),
        nn.Conv2d(second, projection, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
    ]
