"""Cross-entropy, supervised contrastive loss, and temperature scaling."""

from math import exp, log

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch.nn import functional as F

from plug_sklearn.classifiers._batches import NO_CLASS

#: Bounds of the inverse temperature.
LEAST_FACTOR, MOST_FACTOR = 0.1, 10.0
#: Standard deviation of the prior of the logarithm of the temperature.
PRIOR_DEVIATION = 0.7


class ProbeLoss(nn.Module):
    """Cross-entropy, plus a contrastive loss of the projections, if they are given.

    In evaluation mode it is the cross-entropy alone: the log loss is monitored.
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
        """Compute the loss of a batch, a scalar.

        The outputs are logits (n, n_classes), then perhaps projections (n, projection),
        then perhaps the logits of each classifier of a mixture (n, n_classifiers,
        n_classes); of several members, (n, members, ...). The targets are class codes
        and row weights (n,) or (n, members). The sum is divided by n, not by the sum of
        the weights, which average 1 over the epoch: a batch of rows with small weights
        changes the network little.
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
    """Compute the cross-entropy of each row times its weight.

    Logits (n, n_classes) or (n, members, n_classes), and codes and weights (n,) or
    (n, members), give losses (n,) or (n * members,).
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

    ``z`` (n, projection) or (n, members, projection) is scaled to unit length here.
    Rows of different members are not compared, nor rows without a class. ``codes`` and
    ``weights`` (n,) or (n, members) are class codes and factors of the rows' terms.

    References
    ----------
    Khosla et al., "Supervised Contrastive Learning", 2020, equation 2.
    """
    z = F.normalize(z, dim=-1).view(len(z), -1, z.shape[-1]).transpose(0, 1)
    codes = codes.view(len(codes), -1).T
    itself = torch.eye(z.shape[1], dtype=torch.bool, device=z.device)
    left_out = itself | (codes == NO_CLASS)[:, None, :]
    # Not -inf, whose softmax has no gradient where all rows are left out.
    least = torch.finfo(z.dtype).min / 2
    similarity = (z @ z.mT / temperature).masked_fill(left_out, least)
    positives = (codes[:, :, None] == codes[:, None, :]) & ~left_out
    log_ratio = similarity - similarity.logsumexp(dim=2, keepdim=True)
    summed = log_ratio.masked_fill(~positives, 0.0).sum(dim=2)
    terms = -summed / positives.sum(dim=2).clamp(min=1)
    if weights is None:
        return terms.mean()
    return (terms * weights.view(len(weights), -1).T).mean()


def find_inverse_temperature(
    logits: Tensor, codes: Tensor, weights: Tensor, *, is_prior_two_sided: bool = True
) -> float:
    """Find the most probable inverse temperature of logits, within [0.1, 10].

    It minimises the summed loss of held-out rows plus the penalty of a log-normal prior
    around 1: the loss of a few rows alone may be lowest at an extreme temperature. With
    many rows the prior has no effect. A one-sided prior only penalises factors above 1.

    ``logits`` has the shape (n, n_classes), ``codes`` and ``weights`` (n,). Rows
    without a class are ignored; weights average 1.

    References
    ----------
    Guo et al., "On calibration of modern neural networks", 2017, section 4.2.
    """
    logits, codes, weights = logits.cpu().double(), codes.cpu(), weights.cpu()

    def measure_loss(log_factor: float) -> float:
        losses = F.cross_entropy(logits * exp(log_factor), codes, reduction="none")
        loss = float((losses * weights).sum())
        if log_factor < 0 and not is_prior_two_sided:
            return loss
        return loss + (log_factor / PRIOR_DEVIATION) ** 2 / 2

    bounds = log(LEAST_FACTOR), log(MOST_FACTOR)
    with torch.inference_mode():
        found = minimize_scalar(measure_loss, bounds=bounds, method="bounded")
    return exp(found.x)
