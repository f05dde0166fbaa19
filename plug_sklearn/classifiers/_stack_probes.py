"""Fit the linear probes of layers and parts, and choose their weights."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp, rel_entr

from plug_sklearn.classifiers._batches import Rows
from plug_sklearn.classifiers._data import hold_out_rows
from plug_sklearn.classifiers._ridge import (
    Array,
    RidgeRegressions,
    compute_losses,
    make_targets,
    predict,
)

#: Standard deviations of the priors of log scales: of one probe, and of the whole.
PROBE_DEVIATION, JOIN_DEVIATION = 0.5, 0.1
#: Rate at which prior weights fall with the sum of losses, among probes of a part.
PRIOR_RATE = 0.4
#: Standard deviation of the prior of the layers, around the middle layer, as a fraction
#: of the number of layers.
DEPTH_DEVIATION = 0.2
#: Least logarithm of the prior weight of a probe.
LEAST_LOG_PRIOR = -9.0
#: Strength of the prior, in samples.
PRIOR_STRENGTH = 6.0
#: Prior weight of the constant predictor.
CONSTANT_SHARE = 0.5
#: Smallest weight of a probe, as a fraction of the largest. Others are dropped.
LEAST_WEIGHT = 0.01
NEWTON_STEPS = 30
#: Fraction of the mean diagonal that is added to a Gram matrix, for full rank.
JITTER = 1e-8
#: Tolerances of the fits that choose C, and of the final fits.
ROUGH, FINE = 3e-2, 1e-6
#: Target number of held-out predictions of all repeats, and largest number of repeats.
WANTED_PREDICTIONS, MOST_REPEATS = 1000, 10


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
    logits: Iterable[Array],
    scales: Array,
    depths: Array,
    parts: Array,
    held_out: HeldOut,
) -> StackWeights:
    """Choose the weights of probes by their held-out logits, each (m, n_logits).

    ``scales`` (n_probes,) are the factors that these logits were multiplied by, and
    ``depths`` (n_probes,) between 0 and 1 are the relative positions of the layers, and
    ``parts`` (n_probes,) the numbers of the parts that the probes read. The weights
    minimise the held-out loss of the combination plus the Kullback-Leibler divergence
    from prior weights, so that they leave the prior only for probes that correct others
    on several rows.
    """
    constant = held_out.compute_prior_logits()
    same = np.broadcast_to(constant, held_out.targets.shape)
    candidates = [*logits, same]
    log_prior = _compute_log_prior(candidates, depths, parts, held_out)
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


def _compute_log_prior(
    logits: list[Array], depths: Array, parts: Array, held_out: HeldOut
) -> Array:
    """Compute the logarithms of the prior weights: of the probes, then the constant.

    The prior is a mean over groups of probes: those of each part, all of them, and a
    constant predictor, whose logits are the last. Within a part, weights fall
    exponentially with the losses, and layers in the middle have larger weights. A group
    counts by the likelihood of the held-out rows under its weights, less the divergence
    of these weights from those before the losses count. A part whose probes do not help
    is thus left out as a whole. Before the losses count, half of the prior is that of
    the constant predictor, so that of many probes that are no better than chance, the
    luckiest does not win. No prior weight is so small that a probe which corrects the
    others could not get weight.
    """
    n_rows = held_out.weight.sum()
    *losses, loss_of_constant = [float(held_out.compute_loss(own)) for own in logits]
    members = np.unique(parts)[:, None] == parts
    by_depth = -0.5 * ((depths - 0.5) / DEPTH_DEVIATION) ** 2
    before = _join_parts(np.where(members, by_depth, -np.inf))
    falls = by_depth - PRIOR_RATE * n_rows * np.array(losses)
    groups = _join_parts(np.where(members, falls, -np.inf))
    likelihoods = []
    for log_weights, log_before in zip(groups, before, strict=True):
        weights = np.exp(log_weights)
        joined = _combine(logits, weights)
        joined = held_out.find_scale(joined, JOIN_DEVIATION) * joined
        divergence = rel_entr(weights, np.exp(log_before)).sum()
        likelihoods.append(-n_rows * held_out.compute_loss(joined) - divergence)
    shares = np.full(len(groups) + 1, (1 - CONSTANT_SHARE) / len(groups))
    shares[-1] = CONSTANT_SHARE
    likelihoods.append(-n_rows * loss_of_constant)
    of_groups = log_softmax(np.log(shares) + likelihoods)
    of_probes = logsumexp(of_groups[:-1, None] + groups, axis=0)
    raised = np.maximum(of_probes, LEAST_LOG_PRIOR)
    return np.asarray(log_softmax(np.append(raised, of_groups[-1])))


def _join_parts(log_weights: Array) -> Array:
    """Normalise the weights of each part; add their mean if there are several."""
    groups = np.asarray(log_softmax(log_weights, axis=1))
    if len(groups) == 1:
        return groups
    return np.vstack([groups, logsumexp(groups, axis=0) - np.log(len(groups))])


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


@dataclass(frozen=True, eq=False)
class Training:
    """The labels, weights and folds that the probes of all layers and parts share.

    ``codes`` (n,) are classes, and ``weight`` (n,) has a mean of 1. ``folds``
    (n_folds, n) marks the rows that each fold holds out. ``held_out`` describes these
    rows, fold after fold; None: no rows are held out.
    """

    codes: NDArray[np.intp]
    weight: NDArray[np.float64]
    n_classes: int
    folds: NDArray[np.bool_]
    held_out: HeldOut | None

    @classmethod
    def make(
        cls, rows: Rows, class_factors: Array, folds: NDArray[np.bool_] | None
    ) -> Self:
        """Collect what the probes share."""
        codes, n_classes = rows.codes, len(class_factors)
        # Dividing first keeps tiny factors from becoming 0.
        factors = class_factors[codes] / class_factors.max()
        weight = rows.weight / rows.weight.max() * factors
        weight = weight / weight.mean()
        if folds is None:
            return cls(codes, weight, n_classes, np.empty((0, len(codes)), bool), None)
        of_row = np.nonzero(folds)[1]
        shared = weight / np.maximum(folds.sum(axis=0), 1)
        targets = make_targets(codes, n_classes)
        held_out = HeldOut(targets[of_row], shared[of_row])
        has_weight = held_out.weight.any()
        return cls(codes, weight, n_classes, folds, held_out if has_weight else None)


class ProbeChoice(NamedTuple):
    """The chosen C of a probe, its held-out loss, and the scale of its logits."""

    C: float
    loss: float
    scale: float


def hold_out_repeatedly(
    rows: Rows, n_folds: int, n_repeats: int | None, seed: int
) -> NDArray[np.bool_] | None:
    """Mark the rows that each fold of each repeat holds out: (n_folds, n).

    None if no rows can be held out.
    """
    if n_repeats is None:
        n_repeats = -(-WANTED_PREDICTIONS // len(rows.codes))
        n_repeats = min(n_repeats, MOST_REPEATS)
    seeds = np.random.SeedSequence(seed).generate_state(n_repeats)
    found = [hold_out_rows(rows, 1 / n_folds, int(own), n_folds) for own in seeds]
    masks = [own.held_out for own in found if own is not None]
    kept = [mask for mask in masks if mask is not None]
    return np.concatenate(kept) if kept else None


class Standardised:
    """Standardised hidden units of one layer and part, in as few features as possible.

    They are divided by the square root of the number of units, so that the mean squared
    length of a sample is 1 for every model. If there are fewer samples than units, the
    features are the rows of the Cholesky factor of the Gram matrix of the samples. They
    have the same inner products as the units, and thus give the same regressions.
    ``features`` has the shape (n, n_features).
    """

    def __init__(self, samples: Array, weight: Array) -> None:
        units = samples.astype(np.float64)
        self.mean = weight @ units / weight.sum()
        units -= self.mean
        deviation = np.sqrt(weight @ units**2 / weight.sum())
        # Rounding makes the computed deviation of a constant unit slightly above 0.
        is_constant = deviation <= 1e-7 * np.abs(self.mean)
        deviation[is_constant | (deviation == 0)] = np.inf
        self.divisor = deviation * np.sqrt(units.shape[1])
        units /= self.divisor
        self.units = self.features = units
        self.factor = None
        if len(units) < units.shape[1]:
            gram = units @ units.T
            diagonal = np.arange(len(gram))
            gram[diagonal, diagonal] += JITTER * (np.trace(gram) / len(gram) or 1.0)
            self.factor = cholesky(gram, lower=True, overwrite_a=True)
            self.features = self.factor

    def express(self, coefficients: Array) -> tuple[Array, Array]:
        """Turn coefficients of the features and intercept into those of the raw units.

        The shape (n_features + 1, n_logits) becomes (n_logits, n_units) and
        (n_logits,).
        """
        slopes = coefficients[:-1]
        if self.factor is not None:
            slopes = self.units.T @ solve_triangular(
                self.factor, slopes, lower=True, trans="T"
            )
        slopes = slopes.T / self.divisor
        return slopes, coefficients[-1] - slopes @ self.mean


def choose_penalty(
    samples: Array, training: Training, held_out: HeldOut, grid: list[float]
) -> tuple[ProbeChoice, Array]:
    """Choose the C of a probe by the log loss of held-out rows.

    Logits are scaled to suit these rows before their loss is computed: a strong penalty
    shrinks logits, and the temperature of the combination can undo that. Also returns
    the scaled logits of the held-out rows (m, n_logits).
    """
    features = Standardised(samples, training.weight).features.astype(np.float32)
    kept = training.weight[:, None] * ~training.folds.T
    regressions = RidgeRegressions(features, training.codes, training.n_classes, kept)
    middle = (len(grid) - 1) // 2
    start = regressions.fit(1 / grid[middle], tolerance=ROUGH)

    def try_penalty(C: float, coefficients: Array) -> tuple[ProbeChoice, Array]:
        logits = regressions.compute_logits(coefficients).swapaxes(0, 1)
        logits = logits[training.folds].astype(np.float64)
        scale = held_out.find_scale(logits, PROBE_DEVIATION)
        loss = float(held_out.compute_loss(scale * logits))
        return ProbeChoice(C, loss, scale), scale * logits

    first = best = try_penalty(grid[middle], start)
    # The loss falls and then rises: if larger values help, smaller ones do not.
    for others in (grid[middle + 1 :], grid[:middle][::-1]):
        coefficients = start
        for C in others:
            coefficients = regressions.fit(1 / C, coefficients, ROUGH)
            tried = try_penalty(C, coefficients)
            if tried[0].loss >= best[0].loss:
                break
            best = tried
        if best is not first:
            break
    return best


def fit_probe(samples: Array, training: Training, C: float) -> tuple[Array, Array]:
    """Fit a probe to all rows; return (n_logits, n_units) and intercepts."""
    standardised = Standardised(samples, training.weight)
    regressions = RidgeRegressions(
        standardised.features,
        training.codes,
        training.n_classes,
        training.weight[:, None],
    )
    coefficients = regressions.fit(1 / C, tolerance=FINE)
    return standardised.express(coefficients[:, 0])
