"""Join probes of the same samples: their scales, weights and temperature."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plug_sklearn.classifiers._ridge import compute_losses, predict

Array = NDArray[Any]

#: Standard deviations of the logarithm of the scale of one probe, and of all together.
SCALE_DEVIATION, TEMPERATURE_DEVIATION = 1.0, 0.5
NEWTON_STEPS = 30
#: Smallest weight of a probe, as a part of the largest.
LEAST_WEIGHT = 0.01


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Labels and weights of held-out rows, those of several repeats after another.

    ``targets`` (m, n_logits) are probabilities of 0 and 1. ``weight`` (m,) has the sum
    that is the number of rows they tell about: a row that two repeats hold out counts
    half in each.
    """

    targets: Array
    weight: Array

    def compute_loss(self, logits: Array) -> Array:
        """Compute mean log losses (...) of logits (..., m, n_logits)."""
        losses = compute_losses(logits, self.targets)
        return np.asarray(losses @ self.weight / self.weight.sum())

    def find_scales(self, logits: Array, deviation: float = SCALE_DEVIATION) -> Array:
        """Find by what to multiply logits (..., m, n_logits): the most probable scales.

        Their prior is log-normal around 1. Without it, few rows that a probe happens
        to separate make it as confident as numbers can be.
        """
        log_scales = np.zeros(logits.shape[:-2])
        for _ in range(NEWTON_STEPS):
            scaled = np.exp(log_scales)[..., None, None] * logits
            probabilities = predict(scaled)
            weighed = probabilities * scaled
            slope = (scaled * (probabilities - self.targets)).sum(-1) @ self.weight
            spread = (scaled * weighed).sum(-1) - weighed.sum(-1) ** 2
            slope_of_prior = log_scales / deviation**2
            bend = spread @ self.weight + np.maximum(slope, 0) + 1 / deviation**2
            step = np.clip((slope + slope_of_prior) / bend, -1, 1)
            log_scales = log_scales - step
            if np.abs(step).max() < 1e-8:
                break
        return np.exp(log_scales)


def weigh_probes(losses: Array, n_rows: float, rate: float) -> Array:
    """Weigh probes exponentially in the sum of their held-out losses.

    A probe whose mean loss is ``1 / (rate * n_rows)`` above another's weighs e times
    less. Weights below a hundredth of the largest become 0. The rest sum to 1.
    """
    weights = np.exp(-rate * n_rows * (losses - losses.min()))
    weights[weights < LEAST_WEIGHT] = 0
    return np.asarray(weights / weights.sum())
