"""The network over layers or units: a plain torch module."""

import torch
from torch import Tensor, nn

from plug_sklearn.classifiers._layers import Dropout, Projection, Sharpness, Standardise
from plug_sklearn.classifiers._members import MemberLinear, average_members
from plug_sklearn.classifiers._mixture import LayerProbes, Mixture


class CNNNetwork(nn.Module):
    """Convolutions along the layers or the hidden units, a head, and linear probes.

    Each unit of each layer and part is standardised first. There may be several such
    networks, the members, in one module.

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
    conv_over : {"layers", "units"}, default="units"
        What convolutions run along. Their channels are the hidden units of each part,
        or the layers.
    normalise : bool, default=True
        Apply LayerNorm to the hidden units of each layer and part.
    affine : bool, default=True
        Let LayerNorm have weights.
    n_members : int, default=1
        Networks.
    linear_path : bool, default=False
        Mix the logits with those of a linear probe of each layer.
    input_dropout : float, default=0.0
        Probability of dropping a channel.
    n_kept : int, default=None
        Channels to project to before the convolutions; None: none are.
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
        self.sharpness = Sharpness()
        self.conv_over = conv_over
        self.sample_shape = (n_layers, n_parts, hidden_size)
        self.standardise = Standardise(self.sample_shape)
        self.input_dropout = Dropout(input_dropout)
        self.norm: nn.Module = nn.Identity()
        if normalise:
            self.norm = nn.LayerNorm(hidden_size, elementwise_affine=affine)
        n_channels = n_parts * hidden_size if conv_over == "layers" else n_layers
        self.projection = None
        if n_kept is not None:
            self.projection = Projection(n_channels, n_kept)
            n_channels = n_kept
        widths = first, second, projection
        self.reader: nn.Module | None = None
        if conv_over == "layers":
            self.reader = MemberLinear(n_members, n_channels, first)
            convolutions = _convolve_line(n_members, *widths)
        elif n_parts == 1:
            first_convolution = nn.Conv1d(
                n_members * n_channels,
                n_members * first,
                5,
                padding=2,
                groups=n_members,
            )
            convolutions = [first_convolution, *_convolve_line(n_members, *widths)]
        else:
            convolutions = _convolve_parts(n_members, n_channels, n_parts, *widths)
        self.encoder = nn.Sequential(*convolutions, nn.Flatten())
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

    def read_features(self, x: Tensor) -> Tensor:
        """Standardise samples: (n, members or 1, ..., channels)."""
        x = x.reshape(len(x), -1, *self.sample_shape)
        if self.conv_over == "layers":
            # In memory by member and layer, which is how products read it.
            by_layer = x.flatten(start_dim=3).permute(1, 2, 0, 3)
            by_layer = by_layer.clone(memory_format=torch.contiguous_format)
            mean = self.standardise.mean.flatten(start_dim=1)[:, None]
            scale = self.standardise.scale.flatten(start_dim=1)[:, None]
            return by_layer.sub_(mean).mul_(scale).permute(2, 0, 1, 3)
        x = self.norm(self.standardise(x)).movedim(2, -1)
        return x.squeeze(2) if self.sample_shape[1] == 1 else x

    def read_inputs(self, x: Tensor) -> Tensor:
        """Standardise samples, project them, and drop channels."""
        x = self.read_features(x)
        if self.projection is not None:
            x = self.projection(x)
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
        """Map samples to logits and projections.

        Parameters
        ----------
        x : Tensor of shape (n, members, ...) or (n, ...)
            Samples of each member, or of all.

        Returns
        -------
        logits : Tensor of shape (n, members, n_classes) or (n, n_classes)
            Logits of each member; or those of the mean of their probabilities.
        z : Tensor of shape (n, members, projection)
            Projections.
        each : Tensor of shape (n, members, layers + 1, n_classes)
            With a linear path: logits of each layer's probe, and of the network last.
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
        return self.sharpness(logits), *outputs


def _convolve_line(
    n_members: int, first: int, second: int, projection: int
) -> list[nn.Module]:
    m = n_members
    return [
        nn.BatchNorm1d(m * first),
        nn.ReLU(),
        nn.Conv1d(m * first, m * second, 3, padding=1, groups=m),
        nn.BatchNorm1d(m * second),
        nn.ReLU(),
        nn.Conv1d(m * second, m * projection, 1, groups=m),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
    ]


def _convolve_parts(
    n_members: int,
    n_layers: int,
    n_parts: int,
    first: int,
    second: int,
    projection: int,
) -> list[nn.Module]:
    m, height = n_members, min(n_parts, 3)
    padding = (height // 2, 2)
    return [
        nn.Conv2d(m * n_layers, m * first, (height, 5), padding=padding, groups=m),
        nn.BatchNorm2d(m * first),
        nn.ReLU(),
        nn.Conv2d(m * first, m * second, 1, groups=m),
        nn.BatchNorm2d(m * second),
        nn.ReLU(),
        nn.Conv2d(m * second, m * projection, 1, groups=m),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
    ]
