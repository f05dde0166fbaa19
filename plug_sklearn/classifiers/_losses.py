"""The losses: per batch, and weighted by row."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ProbeLoss(nn.Module):
    """Cross-entropy, plus a contrastive term where the network gives a projection.

    Parameters
    ----------
    contrastive_weight : float, default=0.0
        Factor of the contrastive term.
    temperature : float, default=0.07
        Temperature of the contrastive term.
    """

    def __init__(
        self, contrastive_weight: float = 0.0, temperature: float = 0.07
    ) -> None:
        super().__init__()
        self.contrastive_weight = contrastive_weight
        self.temperature = temperature

    def forward(
        self, outputs: Tensor | tuple[Tensor, Tensor], targets: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Compute the loss of a batch.

        Parameters
        ----------
        outputs : Tensor or tuple of Tensor
            Logits (n, n_classes); or logits, and projections (n, projection).
        targets : tuple of Tensor
            Class codes (n,) and row weights (n,). Weights are divided by n, not by
            their sum: they average 1 over the epoch, so that a batch of light rows
            moves the network little.

        Returns
        -------
        Tensor
            A scalar.
        """
        codes, weights = targets
        logits, z = outputs if isinstance(outputs, tuple) else (outputs, None)
        loss = (F.cross_entropy(logits, codes, reduction="none") * weights).mean()
        if z is None or self.contrastive_weight == 0:
            return loss
        contrast = contrast_by_class(z, codes, weights, self.temperature)
        return loss + self.contrastive_weight * contrast


def contrast_by_class(
    z: Tensor, codes: Tensor, weights: Tensor | None = None, temperature: float = 0.07
) -> Tensor:
    r"""Compute the supervised contrastive loss of a batch.

    The mean over rows i of :math:`L_i = -1/|P(i)| \sum_{p \in P(i)} \log(
    \exp(z_i \cdot z_p / \tau) / \sum_{a \neq i} \exp(z_i \cdot z_a / \tau))`,
    where P(i) are the other rows of i's class. A row without any adds nothing.

    Parameters
    ----------
    z : Tensor of shape (n, projection)
        Projections; scaled to unit length here.
    codes : Tensor of shape (n,)
        Class codes.
    weights : Tensor of shape (n,), default=None
        Factors of the rows' terms; None: all 1.
    temperature : float, default=0.07
        The :math:`\tau` of the formula.

    Returns
    -------
    Tensor
        A scalar.

    References
    ----------
    Khosla et al., "Supervised Contrastive Learning", 2020, equation 2.
    """
    z = F.normalize(z, dim=1)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    similarity = (z @ z.T / temperature).masked_fill(itself, -torch.inf)
    positives = (codes[:, None] == codes[None, :]) & ~itself
    log_ratio = similarity - similarity.logsumexp(dim=1, keepdim=True)
    # Filled rather than multiplied: a row's ratio to itself is log 0, and 0 x -inf nan.
    summed = log_ratio.masked_fill(~positives, 0.0).sum(dim=1)
    terms = -summed / positives.sum(dim=1).clamp(min=1)
    return terms.mean() if weights is None else (terms * weights).mean()
