"""The network of features, and how networks begin: plain torch modules."""

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Generator, Tensor, nn

from plug_sklearn.classifiers._cnn_network import CNNNetwork
from plug_sklearn.classifiers._layers import Dropout, Projection, Sharpness, Standardise
from plug_sklearn.classifiers._members import (
    LinearPath,
    MemberLinear,
    MemberNorm,
    average_members,
)
from plug_sklearn.classifiers._mixture import LayerProbes, Mixture


class MLPNetwork(nn.Module):
    """Two blocks, a residual block, and a linear layer on a narrow last block.

    Features are standardised first. There may be several such networks, the members,
    in one module.

    Parameters
    ----------
    n_features, n_classes : int
        Features of a sample, and logits.
    first, second, last : int
        Units of the blocks.
    dropout : float
        Probability of dropping a unit after each block.
    n_members : int, default=1
        Networks.
    linear_path : bool, default=False
        Add a linear function of the features to the logits.
    input_dropout : float, default=0.0
        Probability of dropping a feature.
    n_kept : int, default=None
        Features to project to before the blocks; None: none are.
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
        self.sharpness = Sharpness()
        self.standardise = Standardise((n_features,))
        self.projection = None
        n_inputs = n_features
        if n_kept is not None:
            self.projection, n_inputs = Projection(n_features, n_kept), n_kept
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

    def read_features(self, x: Tensor) -> Tensor:
        """Standardise samples: (n, members or 1, n_features)."""
        features: Tensor = self.standardise(x.reshape(len(x), -1, self.n_features))
        return features

    def forward(self, x: Tensor) -> Tensor:
        """Map samples to logits.

        Parameters
        ----------
        x : Tensor of shape (n, members, ...) or (n, ...)
            Samples of each member, or of all.

        Returns
        -------
        Tensor of shape (n, members, n_classes) or (n, n_classes)
            Logits of each member; or those of the mean of their probabilities.
        """
        x = self.read_features(x)
        is_shared = x.shape[1] == 1
        if self.projection is not None:
            x = self.projection(x)
        logits = self.compute_logits(x)
        logits = average_members(logits) if is_shared else logits
        scaled: Tensor = self.sharpness(logits)
        return scaled

    def compute_logits(self, features: Tensor) -> Tensor:
        """Map standardised features (n, members or 1, units) to the members' logits."""
        x = self.input_dropout(features)
        hidden = self.entry(x)
        logits: Tensor = self.output(self.head(hidden + self.residual(hidden)))
        return logits if self.linear is None else logits + self.linear(x)


def initialise_parameters(
    module: MLPNetwork | CNNNetwork,
    generator: Generator,
    class_shares: Sequence[float] | None = None,
) -> None:
    """Draw a module's parameters in place, from a generator and nothing else.

    Weights and biases of linear layers and convolutions are uniform within
    ±1 / sqrt(fan in), as torch's own; norms and standardising start as the identity,
    and a linear path as zero.

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
        if isinstance(layer, MemberLinear | LayerProbes):
            layer.draw(generator)
        elif isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
            bound = 1 / sqrt(layer.weight[0].numel())
            for parameter in layer.parameters(recurse=False):
                nn.init.uniform_(parameter, -bound, bound, generator=generator)
        elif isinstance(
            layer,
            Standardise
            | Sharpness
            | Mixture
            | nn.BatchNorm1d
            | nn.BatchNorm2d
            | nn.LayerNorm,
        ):
            layer.reset_parameters()
    if class_shares is not None:
        shares = torch.tensor(class_shares, dtype=torch.float64).clamp(min=1e-6)
        with torch.no_grad():
            module.output.bias.copy_(shares.log())
            if isinstance(module.linear, LayerProbes):
                module.linear.bias.copy_(shares.log())
