"""The losses: per batch, and weighted by row."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plug_sklearn.classifiers._rows import NO_CLASS


class ProbeLoss(nn.Module):
    """Cross-entropy, plus a contrastive term where the network gives a projection.

    Without the term in evaluation mode: what is monitored is the log loss.

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
            Logits (n, n_classes); or logits, and projections (n, projection); or these
            and the logits of each classifier that the first are a mixture of (n,
            n_classifiers, n_classes). Of several members: (n, members, ...).
        targets : tuple of Tensor
            Class codes and row weights (n,), or (n, members). Weights are divided by n,
            not by their sum: they average 1 over the epoch, so that a batch of light
            rows moves the network little.

        Returns
        -------
        Tensor
            A scalar.
        """
        codes, weights = targets
        logits, *others = outputs if isinstance(outputs, tuple) else (outputs,)
        if len(others) == 2 and self.training:
            *layers, network = others[1].unbind(dim=-2)
            alone = [weigh_losses(each, codes, weights).mean() for each in layers]
            own = weigh_losses(network, codes, weights).mean()
            loss = (own + torch.stack(alone).mean()) / 2
        else:
            loss = weigh_losses(logits, codes, weights).mean()
        if not others or self.contrastive_weight == 0 or not self.training:
            return loss
        z = others[0]
        contrast = contrast_by_class(z, codes, weights, self.temperature)
        return loss + self.contrastive_weight * contrast


def weigh_losses(logits: Tensor, codes: Tensor, weights: Tensor) -> Tensor:
    """Compute the cross-entropy of each row, times its weight.

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes) or (n, members, n_classes)
        Logits.
    codes, weights : Tensor of shape (n,) or (n, members)
        Class codes and weights.

    Returns
    -------
    Tensor of shape (n,) or (n * members,)
    """
    losses = F.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), codes.reshape(-1), reduction="none"
    )
    return losses * weights.reshape(-1)


def contrast_by_class(
    z: Tensor, codes: Tensor, weights: Tensor | None = None, temperature: float = 0.07
) -> Tensor:
    r"""Compute the supervised contrastive loss of a batch.

    The mean over rows i of :math:`L_i = -1/|P(i)| \sum_{p \in P(i)} \log(
    \exp(z_i \cdot z_p / \tau) / \sum_{a \neq i} \exp(z_i \cdot z_a / \tau))`,
    where P(i) are the other rows of i's class. A row without any adds nothing.

    Parameters
    ----------
    z : Tensor of shape (n, projection) or (n, members, projection)
        Projections; scaled to unit length here. Those of a member contrast with each
        other alone.
    codes : Tensor of shape (n,) or (n, members)
        Class codes; rows of none are no row's others.
    weights : Tensor of the shape of ``codes``, default=None
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
    z = F.normalize(z, dim=-1).view(len(z), -1, z.shape[-1]).transpose(0, 1)
    codes = codes.view(len(codes), -1).T
    itself = torch.eye(z.shape[1], dtype=torch.bool, device=z.device)
    left_out = itself | (codes == NO_CLASS)[:, None, :]
    # Not -inf: where all are left out, its softmax has no gradient.
    least = torch.finfo(z.dtype).min / 2
    similarity = (z @ z.mT / temperature).masked_fill(left_out, least)
    positives = (codes[:, :, None] == codes[:, None, :]) & ~left_out
    log_ratio = similarity - similarity.logsumexp(dim=2, keepdim=True)
    summed = log_ratio.masked_fill(~positives, 0.0).sum(dim=2)
    terms = -summed / positives.sum(dim=2).clamp(min=1)
    if weights is None:
        return terms.mean()
    return (terms * weights.view(len(weights), -1).T).mean()
