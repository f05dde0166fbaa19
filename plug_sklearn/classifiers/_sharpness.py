"""Logits of rows that were held out → how sure to be of logits."""

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn.functional import cross_entropy

#: Factors to search. Few rows can ask for one that is much too large.
LEAST, MOST = 0.1, 1.5


def find_sharpness(logits: Tensor, codes: Tensor, weights: Tensor) -> float:
    """Find the factor of logits at which their loss is lowest: 1 over a temperature.

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes)
        Logits of rows that the network has not learnt from.
    codes : Tensor of shape (n,)
        Class codes; rows of none count in nothing.
    weights : Tensor of shape (n,)
        Weights of the rows.

    Returns
    -------
    float
        Within [0.1, 1.5].

    References
    ----------
    Guo et al., "On calibration of modern neural networks", 2017, section 4.2.
    """
    logits, codes, weights = logits.cpu().double(), codes.cpu(), weights.cpu()

    def measure_loss(factor: float) -> float:
        losses = cross_entropy(logits * factor, codes, reduction="none")
        return float((losses * weights).mean())

    with torch.inference_mode():
        found = minimize_scalar(measure_loss, bounds=(LEAST, MOST), method="bounded")
    return float(found.x)
