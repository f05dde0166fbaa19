"""Logits of rows that were held out → how sure to be of logits."""

from math import exp, log

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn.functional import cross_entropy

#: Factors to search.
LEAST, MOST = 0.1, 10.0
#: Standard deviation of the prior of the logarithm of the factor.
PRIOR_DEVIATION = 0.7


def find_sharpness(
    logits: Tensor, codes: Tensor, weights: Tensor, *, doubt_below_one: bool = True
) -> float:
    """Find the most probable factor of logits: 1 over a temperature.

    It minimises the summed loss plus the penalty of a log-normal prior around 1. Of a
    few rows that happen to be told apart, or not, the lowest loss alone is at a factor
    that is much too large or small; with many rows the prior counts for nothing.

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes)
        Logits of rows that the network has not learnt from.
    codes : Tensor of shape (n,)
        Class codes; rows of none count in nothing.
    weights : Tensor of shape (n,)
        Weights of the rows, which average 1.
    doubt_below_one : bool, default=True
        Whether the prior holds back factors below 1 too, which make less sure.

    Returns
    -------
    float
        Within [0.1, 10].

    References
    ----------
    Guo et al., "On calibration of modern neural networks", 2017, section 4.2.
    """
    logits, codes, weights = logits.cpu().double(), codes.cpu(), weights.cpu()

    def measure_loss(log_factor: float) -> float:
        losses = cross_entropy(logits * exp(log_factor), codes, reduction="none")
        loss = float((losses * weights).sum())
        if log_factor < 0 and not doubt_below_one:
            return loss
        return loss + (log_factor / PRIOR_DEVIATION) ** 2 / 2

    bounds = log(LEAST), log(MOST)
    with torch.inference_mode():
        found = minimize_scalar(measure_loss, bounds=bounds, method="bounded")
    return exp(found.x)
