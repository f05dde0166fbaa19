"""The networks of the classifiers: plain torch modules."""

from collections.abc import Sequence
from itertools import pairwise
from math import sqrt
from typing import Any

import torch
from torch import Generator, Tensor, nn

from plug_sklearn.classifiers._layers import (
    Dropout,
    LayerProbes,
    LinearPath,
    MemberLinear,
    MemberNorm,
    Mixture,
    PrincipalComponents,
    Standardise,
    TemperatureScaling,
    average_members,
)
from plug_sklearn.classifiers._token_network import TokenNetwork


class MLPNetwork(nn.Module):
    """An ensemble of MLPs: two blocks, a residual block, and a narrow last block.

    Features are standardised first. With ``n_kept``, they are then replaced by that
    many principal components. With ``linear_path``, a linear function of the features
    is added to the logits.
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
        n_members: int = 1,
        linear_path: bool = False,
        input_dropout: float = 0.0,
        n_kept: int | None = None,
    ) -> None:
        super().__init__()

        def block(n_in: int, n_out: int) -> nn.Sequential:
            return nn.Sequential(
                MemberLinear(n_members, n_in, n_out),
                MemberNorm(n_members, n_out),
                nn.ReLU(),
                Dropout(dropout),
            )

        self.n_features = n_features
        self.n_members = n_members
        self.temperature = TemperatureScaling()
        self.standardise = Standardise((n_features,))
        self.components = None
        n_inputs = n_features
        if n_kept is not None:
            self.components, n_inputs = PrincipalComponents(n_features, n_kept), n_kept
        self.input_dropout = Dropout(input_dropout)
        self.entry = nn.Sequential(block(n_inputs, first), block(first, second))
        self.residual = nn.Sequential(
            block(second, second), MemberLinear(n_members, second, second)
        )
        self.head = block(second, last)
        self.output = MemberLinear(n_members, last, n_classes)
        self.linear = None
        if linear_path:
            self.linear = LinearPath(n_members, n_inputs, n_classes)

    def start_from(self, log_shares: Tensor) -> None:
        """Set the biases so that the first logits are the log class frequencies."""
        self.output.bias.copy_(log_shares)

    def read_features(self, x: Tensor) -> Tensor:
        """Standardise samples: (n, members or 1, n_features)."""
        features: Tensor = self.standardise(x.reshape(len(x), -1, self.n_features))
        return features

    def forward(self, x: Tensor) -> Tensor:
        """Map samples to logits.

        Samples (n, members, ...), different for each member, give the logits
        (n, members, n_classes) of each member. Samples (n, ...), the same for all
        members, give the logits (n, n_classes) of the mean of their probabilities.
        """
        x = self.read_features(x)
        is_shared = x.shape[1] == 1
        if self.components is not None:
            x = self.components(x)
        logits = self.compute_logits(x)
        logits = average_members(logits) if is_shared else logits
        scaled: Tensor = self.temperature(logits)
        return scaled

    def compute_logits(self, features: Tensor) -> Tensor:
        """Map standardised features (n, members or 1, units) to the members' logits."""
        x = self.input_dropout(features)
        hidden = self.entry(x)
        logits: Tensor = self.output(self.head(hidden + self.residual(hidden)))
        return logits if self.linear is None else logits + self.linear(x)


class CNNNetwork(nn.Module):
    """An ensemble of CNNs over samples (n_layers, n_parts, hidden_size).

    Each hidden unit of each layer and part is standardised first. The convolutions run
    along the layers, with the hidden units of all parts as channels, or along the
    hidden units, with the layers as channels. In the second case, ``normalise`` first
    applies a LayerNorm to the hidden units of each layer and part. The LayerNorm has
    weights if ``affine``. With ``n_kept``, the channels are replaced by that many
    principal components. With ``linear_path``, the logits are a mixture of the
    network's and those of a linear probe of each layer.
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
        conv_over: str = "units",
        normalise: bool = True,
        affine: bool = True,
        n_members: int = 1,
        linear_path: bool = False,
        input_dropout: float = 0.0,
        n_kept: int | None = None,
    ) -> None:
        super().__init__()
        self.n_members = n_members
        self.temperature = TemperatureScaling()
        self.conv_over = conv_over
        self.sample_shape = (n_layers, n_parts, hidden_size)
        self.standardise = Standardise(self.sample_shape)
        self.input_dropout = Dropout(input_dropout)
        self.norm: nn.Module = nn.Identity()
        if normalise:
            self.norm = nn.LayerNorm(hidden_size, elementwise_affine=affine)
        n_channels = n_parts * hidden_size if conv_over == "layers" else n_layers
        self.components = None
        if n_kept is not None:
            self.components = PrincipalComponents(n_channels, n_kept)
            n_channels = n_kept
        widths = [first, second, projection]
        self.reader: nn.Module | None = None
        if conv_over == "layers":
            self.reader = MemberLinear(n_members, n_channels, first)
        else:
            widths.insert(0, n_channels)
        height = min(n_parts, 3) if conv_over == "units" else 1
        self.encoder = nn.Sequential(*_convolve(n_members, widths, height))
        self.dropout = Dropout(dropout)
        self.head = nn.Sequential(
            MemberLinear(n_members, projection, projection),
            nn.ReLU(),
            Dropout(dropout),
            MemberLinear(n_members, projection, head),
            nn.ReLU(),
            Dropout(dropout),
        )
        self.output = MemberLinear(n_members, head, n_classes)
        self.linear, self.mixture = None, None
        if linear_path:
            n_depth = n_layers if conv_over == "layers" else n_channels
            n_units = n_channels if conv_over == "layers" else n_parts * hidden_size
            self.linear = LayerProbes(n_members, n_depth, n_units, n_classes)
            self.mixture = Mixture(n_depth + 1)

    def start_from(self, log_shares: Tensor) -> None:
        """Set the biases so that the first logits are the log class frequencies."""
        self.output.bias.copy_(log_shares)
        if self.linear is not None:
            self.linear.bias.copy_(log_shares)

    def read_features(self, x: Tensor) -> Tensor:
        """Standardise samples: (n, members or 1, ..., channels)."""
        x = x.reshape(len(x), -1, *self.sample_shape)
        if self.conv_over == "layers":
            # Matrix products read it by member and layer.
            by_layer = x.flatten(start_dim=3).permute(1, 2, 0, 3)
            by_layer = by_layer.clone(memory_format=torch.contiguous_format)
            mean = self.standardise.mean.flatten(start_dim=1)[:, None]
            scale = self.standardise.scale.flatten(start_dim=1)[:, None]
            return by_layer.sub_(mean).mul_(scale).permute(2, 0, 1, 3)
        x = self.norm(self.standardise(x)).movedim(2, -1)
        return x.squeeze(2) if self.sample_shape[1] == 1 else x

    def read_inputs(self, x: Tensor) -> Tensor:
        """Standardise samples, keep principal components, and drop channels."""
        x = self.read_features(x)
        if self.components is not None:
            x = self.components(x)
        if not self.training:
            return x
        places = [1] * (x.ndim - 3)
        mask = self.input_dropout(x.new_ones(*x.shape[:2], *places, x.shape[-1]))
        # Features are a copy already; another would be new memory in each step.
        dropped: Tensor = x.mul_(mask)
        return dropped

    def encode(self, x: Tensor) -> Tensor:
        """Map what ``read_inputs`` gives to projections (n, members, projection)."""
        if self.reader is not None:
            read = self.reader(x.permute(2, 0, 1, 3).flatten(end_dim=1))
            x = read.unflatten(0, (-1, len(x))).movedim(0, 2)
        x = x.expand(-1, self.n_members, *x.shape[2:])
        z: Tensor = self.encoder(x.movedim(-1, 2).flatten(1, 2))
        dropped: Tensor = self.dropout(z.view(len(x), self.n_members, -1))
        return dropped

    def project(self, x: Tensor) -> Tensor:
        """Map samples (n, ...) to their projections z, (n, members * projection)."""
        return self.encode(self.read_inputs(x)).flatten(start_dim=1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map samples to logits and projections z (n, members, projection).

        The logits have the shapes of those of ``MLPNetwork``. With a linear path, a
        third result (n, members, layers + 1, n_classes) holds the logits of each
        layer's probe and, last, of the convolutional network.
        """
        x = self.read_inputs(x)
        z = self.encode(x)
        logits: Tensor = self.output(self.head(z))
        outputs = [z]
        if self.linear is not None and self.mixture is not None:
            layers = x if self.conv_over == "layers" else x.movedim(-1, 2)
            alone = self.linear(layers.flatten(start_dim=3))
            outputs.append(torch.cat([alone, logits[:, :, None]], dim=2))
            logits = self.mixture(outputs[-1])
        if x.shape[1] == 1:
            logits = average_members(logits)
        return self.temperature(logits), *outputs


def _convolve(n_members: int, widths: Sequence[int], height: int) -> list[nn.Module]:
    """List convolutions from each width to the next, and the mean of what they give.

    They run along a line, or, if ``height`` is above 1, over parts too. If there are
    three widths, another layer has read the inputs.
    """
    kinds: Any = nn.Conv1d, nn.BatchNorm1d, nn.AdaptiveAvgPool1d
    kernels: list[tuple[int, ...]] = [(5,), (3,), (1,)]
    if height > 1:
        kinds = nn.Conv2d, nn.BatchNorm2d, nn.AdaptiveAvgPool2d
        kernels = [(height, 5), (1, 1), (1, 1)]
    convolution, norm, pool = kinds
    layers: list[nn.Module] = []
    sizes = [n_members * width for width in widths]
    pairs = list(pairwise(sizes))
    for (n_in, n_out), kernel in zip(pairs, kernels[-len(pairs) :], strict=True):
        if layers or len(widths) == 3:
            layers += [norm(n_in), nn.ReLU()]
        padding = tuple(size // 2 for size in kernel)
        layers.append(
            convolution(n_in, n_out, kernel, padding=padding, groups=n_members)
        )
    return [*layers, nn.ReLU(), pool(1), nn.Flatten()]


def initialise_parameters(
    module: MLPNetwork | CNNNetwork | TokenNetwork,
    generator: Generator,
    class_shares: Sequence[float] | None = None,
) -> None:
    """Draw a module's parameters in place, from a generator and nothing else.

    Weights and biases of linear layers and convolutions are uniform within
    ±1 / sqrt(fan in), as in torch. Norms and standardisation start as the identity, and
    the linear path as zero. The logits start from the probability of each class,
    ``class_shares``, if it is given, and from a drawn bias otherwise.
    """
    for layer in module.modules():
        draw = getattr(layer, "draw", None)
        reset = getattr(layer, "reset_parameters", None)
        if draw is not None:
            draw(generator)
        elif isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
            bound = 1 / sqrt(layer.weight[0].numel())
            for parameter in layer.parameters(recurse=False):
                nn.init.uniform_(parameter, -bound, bound, generator=generator)
        elif reset is not None:
            reset()
    if class_shares is not None:
        shares = torch.tensor(class_shares, dtype=torch.float64).clamp(min=1e-6)
        with torch.no_grad():
            module.start_from(shares.log())
