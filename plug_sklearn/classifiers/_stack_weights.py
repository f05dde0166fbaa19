"""Combine probes of the same samples: their scales, weights and temperature."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp, rel_entr

from plug_sklearn.classifiers._ridge import compute_losses, predict

Array = NDArray[Any]

#: Standard deviations of the priors of log scales: of one probe, and of the whole.
PROBE_DEVIATION, JOIN_DEVIATION = 0.5, 0.1
#: Rate at which the prior weight of a probe falls with the sum of its losses, among the
#: probes of its part.
PRIOR_RATE = 0.4
#: Least logarithm of the prior weight of a probe.
LEAST_LOG_PRIOR = -9.0
#: Strength of the prior, in rows.
PRIOR_STRENGTH = 6.0
#: Prior weight of the constant predictor.
CONSTANT_SHARE = 0.5
#: Smallest weight of a probe, as a part of the largest. Others are dropped.
LEAST_WEIGHT = 0.01
NEWTON_STEPS = 30


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Labels and weights of the held-out rows of all repeats, one repeat after another.

    ``targets`` (m, n_logits) are one-hot labels. ``weight`` (m,) sums to the total
    weight of the rows: a row that two repeats hold out has half its weight in each.
    """

    targets: Array
    weight: Array

    def compute_loss(self, logits: Array) -> Array:
        """Compute mean log losses (...) of logits (..., m, n_logits)."""
        losses = compute_losses(logits, self.targets)
        return np.asarray(losses @ self.weight / self.weight.sum())

    def compute_prior_logits(self) -> Array:
        """Compute the logits (n_logits,) of the class frequencies."""
        totals = self.weight @ self.targets + 0.5
        if len(totals) == 1:
            return np.asarray(np.log(totals / (self.weight.sum() + 1 - totals)))
        return np.asarray(log_softmax(np.log(totals)))

    def find_scale(self, logits: Array, deviation: float) -> float:
        """Find the most probable factor for logits (m, n_logits).

        The prior of the factor is log-normal around 1, with this standard deviation of
        the logarithm. Without a prior, the factor would be infinite if a probe happens
        to separate all rows.
        """
        log_scale = 0.0
        for _ in range(NEWTON_STEPS):
            scaled = np.exp(log_scale) * logits
            probabilities = predict(scaled)
            weighed = probabilities * scaled
            slope = (scaled * (probabilities - self.targets)).sum(axis=1) @ self.weight
            spread = (scaled * weighed).sum(axis=1) - weighed.sum(axis=1) ** 2
            bend = spread @ self.weight + max(slope, 0) + 1 / deviation**2
            step = np.clip((slope + log_scale / deviation**2) / bend, -1, 1)
            log_scale -= step
            if abs(step) < 1e-8:
                break
        return float(np.exp(log_scale))


@dataclass(frozen=True, eq=False)
class StackWeights:
    """The combination of several probes.

    The logits are ``constant`` (n_logits,) plus the sum of the probes' logits times
    ``factors`` (n_probes,). A factor is the probe's weight times its scale, divided by
    ``temperature``. ``weights`` (n_probes,) sum to at most 1.
    """

    weights: Array
    factors: Array
    constant: Array
    temperature: float


def choose_weights(
    logits: Iterable[Array], scales: Array, parts: Array, held_out: HeldOut
) -> StackWeights:
    """Choose the weights of probes by their held-out logits, each (m, n_logits).

    ``scales`` (n_probes,) are the factors that these logits were multiplied by, and
    ``parts`` (n_probes,) the numbers of the parts that the probes read. The weights
    minimise the held-out loss of the combination plus the Kullback-Leibler divergence
    from prior weights, so that they leave the prior only for probes that correct others
    on several rows.
    """
    constant = held_out.compute_prior_logits()
    same = np.broadcast_to(constant, held_out.targets.shape)
    candidates = [*logits, same]
    log_prior = _compute_log_prior(candidates, parts, held_out)
    found = _improve_weights(np.stack(candidates), log_prior, held_out)
    found[:-1][found[:-1] < LEAST_WEIGHT * found[:-1].max()] = 0
    found /= found.sum()
    scale = held_out.find_scale(_combine(candidates, found), JOIN_DEVIATION)
    weights = found[:-1]
    return StackWeights(
        weights, scale * weights * scales, scale * found[-1] * constant, 1 / scale
    )


def _combine(logits: list[Array], weights: Array) -> Array:
    """Sum weighted logits, without a copy of all of them."""
    total = np.zeros(logits[0].shape)
    for position in np.flatnonzero(weights):
        total += weights[position] * logits[position]
    return total


def _compute_log_prior(logits: list[Array], parts: Array, held_out: HeldOut) -> Array:
    """Compute the logarithms of the prior weights: of the probes, then the constant.

    The prior is a mean over groups of probes: those of each part, all of them, and a
    constant predictor, whose logits are the last. Within a part, weights fall
    exponentially with the losses. A group counts by the likelihood of the held-out rows
    under its weights, less the divergence of these weights from equal ones. A part
    whose probes do not help is thus left out as a whole. Before the losses count, half
    of the prior is that of the constant predictor, so that of many probes that are no
    better than chance, the luckiest does not win. No prior weight is so small that a
    probe which corrects the others could not get weight.
    """
    n_rows = held_out.weight.sum()
    *losses, loss_of_constant = [float(held_out.compute_loss(own)) for own in logits]
    members = np.unique(parts)[:, None] == parts
    falls = np.where(members, -PRIOR_RATE * n_rows * np.array(losses), -np.inf)
    groups = log_softmax(falls, axis=1)
    if len(groups) > 1:
        together = logsumexp(groups, axis=0) - np.log(len(groups))
        groups = np.vstack([groups, together])
    likelihoods = []
    for log_weights in groups:
        weights = np.exp(log_weights)
        joined = _combine(logits, weights)
        joined = held_out.find_scale(joined, JOIN_DEVIATION) * joined
        n_probes = np.count_nonzero(np.isfinite(log_weights))
        divergence = rel_entr(weights, 1 / n_probes).sum()
        likelihoods.append(-n_rows * held_out.compute_loss(joined) - divergence)
    shares = np.full(len(groups) + 1, (1 - CONSTANT_SHARE) / len(groups))
    shares[-1] = CONSTANT_SHARE
    likelihoods.append(-n_rows * loss_of_constant)
    of_groups = log_softmax(np.log(shares) + likelihoods)
    of_probes = logsumexp(of_groups[:-1, None] + groups, axis=0)
    raised = np.maximum(of_probes, LEAST_LOG_PRIOR)
    return np.asarray(log_softmax(np.append(raised, of_groups[-1])))


def _improve_weights(logits: Array, log_prior: Array, held_out: HeldOut) -> Array:
    """Minimise the loss plus the divergences of the weights and of the scale."""
    flat = logits.reshape(len(logits), -1)

    def compute_objective(raw: Array) -> tuple[float, Array]:
        log_weights, log_scale = log_softmax(raw[:-1]), raw[-1]
        weights = np.exp(log_weights)
        joined = np.exp(log_scale) * (weights @ flat).reshape(logits.shape[1:])
        loss = compute_losses(joined, held_out.targets) @ held_out.weight
        errors = (predict(joined) - held_out.targets) * held_out.weight[:, None]
        surprise = log_weights - log_prior
        slopes = np.exp(log_scale) * (flat @ errors.ravel())
        slopes += PRIOR_STRENGTH * surprise
        objective = loss + PRIOR_STRENGTH * (weights @ surprise)
        objective += 0.5 * (log_scale / JOIN_DEVIATION) ** 2
        of_scale = (errors * joined).sum() + log_scale / JOIN_DEVIATION**2
        of_weights = weights * (slopes - weights @ slopes)
        return float(objective), np.append(of_weights, of_scale)

    start = np.append(log_prior, 0.0)
    found = minimize(compute_objective, start, jac=True, method="L-BFGS-B").x
    return np.asarray(np.exp(log_softmax(found[:-1])))
