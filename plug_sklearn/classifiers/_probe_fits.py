"""Fit the linear probe of one layer and part: choose its penalty, and fit all rows."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular

from plug_sklearn.classifiers._data import Rows, hold_out_rows
from plug_sklearn.classifiers._ridge import RidgeRegressions, make_targets
from plug_sklearn.classifiers._stack_weights import PROBE_DEVIATION, HeldOut

Array = NDArray[Any]

#: Added to the diagonal of a Gram matrix, so that it has full rank: a fraction of the
#: diagonal's mean.
JITTER = 1e-8
#: Tolerances of the fits that choose C, and of the final fits.
ROUGH, FINE = 3e-2, 1e-6
#: Target number of held-out predictions of all repeats, and largest number of repeats.
WANTED_PREDICTIONS, MOST_REPEATS = 1000, 10


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


@dataclass(frozen=True, eq=False)
class ProbeChoice:
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
    """Standardised units of one layer and part, in as few features as possible.

    They are divided by the square root of the number of units, so that the mean squared
    length of a sample is 1 for every model. If there are fewer samples than units, the
    features are the rows of the Cholesky factor of the Gram matrix of the samples. They
    have the same inner products as the units, and thus give the same regressions.
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
        self.units = units
        self.factor = None
        if len(units) < units.shape[1]:
            gram = units @ units.T
            diagonal = np.arange(len(gram))
            gram[diagonal, diagonal] += JITTER * (np.trace(gram) / len(gram) or 1.0)
            self.factor = cholesky(gram, lower=True, overwrite_a=True)

    @property
    def features(self) -> Array:
        """Features of the samples (n, n_features)."""
        return self.units if self.factor is None else self.factor

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
