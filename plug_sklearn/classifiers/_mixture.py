"""Several classifiers of one sample, weighed by how well each predicts."""

from collections.abc import Iterable

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy

from plug_sklearn.classifiers._rows import Batch

#: Divides the summed losses in the exponent of a weight.
SOFTNESS = 4.0
#: Factors of logits at which a classifier may be judged.
FACTORS = tuple(2.0 ** (power / 2) for power in range(-8, 11))


class LayerProbes(nn.Module):
    """A linear probe of each layer, of each member; zero to begin with.

    Parameters
    ----------
    n_members, n_layers, n_in, n_classes : int
        Members, layers, inputs of a layer, and logits.
    """

    def __init__(
        self, n_members: int, n_layers: int, n_in: int, n_classes: int
    ) -> None:
        super().__init__()
        self.n_in = n_in
        self.weight = nn.Parameter(torch.empty(n_members, n_in, n_layers, n_classes))
        self.bias = nn.Parameter(torch.empty(n_members, n_classes))

    def draw(self, generator: Generator) -> None:
        """Become zero."""
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, members or 1, layers, n_in) to (n, members, layers, n_classes)."""
        logits = x.permute(1, 2, 0, 3) @ self.weight.transpose(1, 2)
        return logits.permute(2, 0, 1, 3) + self.bias[:, None]


class Mixture(nn.Module):
    """A weighted mean of the logits of several classifiers.

    Parameters
    ----------
    n_classifiers : int
        Classifiers.

    Attributes
    ----------
    weight : Tensor of shape (n_classifiers,)
        Sums to 1; all the same until ``learn``. A buffer: not trained by gradient.
    """

    weight: Tensor

    def __init__(self, n_classifiers: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.empty(n_classifiers))

    def reset_parameters(self) -> None:
        """Weigh all the same."""
        self.weight.fill_(1 / len(self.weight))

    def learn(self, logits: Tensor, codes: Tensor, weights: Tensor) -> None:
        r"""Weigh the classifiers by their losses on rows they have not learnt from.

        Classifier k has a weight in proportion to :math:`\exp(-L_k / \beta)`, where
        :math:`L_k` is its summed log loss at the best of some factors of its logits,
        and :math:`\beta = 4`.

        Parameters
        ----------
        logits : Tensor of shape (n, n_classifiers, n_classes)
            Logits of each classifier.
        codes : Tensor of shape (n,)
            Class codes; rows of none count in nothing.
        weights : Tensor of shape (n,)
            Weights of the rows.

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
    network: nn.Module, mixture: Mixture, held_out: Iterable[Batch]
) -> None:
    """Weigh the classifiers of a network's mixture by rows held out.

    Parameters
    ----------
    network : nn.Module
        Gives the logits of each classifier third; in evaluation mode.
    mixture : Mixture
        Its own.
    held_out : iterable of Batch
        Rows of each member, or of all.
    """
    logits, codes, weights = [], [], []
    with torch.inference_mode():
        for x, (code, weight) in held_out:
            each = network(x)[2]
            logits.append(each.flatten(end_dim=1))
            # A row that all members predict counts once in all.
            share = weight.view(len(x), -1) * (weight.numel() / len(logits[-1]))
            codes.append(code.view(len(x), -1).expand(each.shape[:2]).flatten())
            weights.append(share.expand(each.shape[:2]).flatten())
        mixture.learn(torch.cat(logits), torch.cat(codes), torch.cat(weights))
