"""Fit the linear probe of one layer and part: its penalty, held-out logits, weights."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular

from plug_sklearn.classifiers._join import HeldOut
from plug_sklearn.classifiers._ridge import RidgeRegressions, count_logits

Array = NDArray[Any]

#: Added to the diagonal of a Gram matrix, as a part of its mean, so that it has full
#: rank.
JITTER = 1e-8
#: Tolerance of the last fit, which predicts; those that choose are rougher.
TOLERANCE = 1e-5
#: Values of C that may be worse than the best before larger ones are left out.
PATIENCE = 2


@dataclass(frozen=True, eq=False)
class Labelled:
    """What the probes of all layers and parts share.

    ``codes`` (n,) are classes, ``weight`` (n,) weights whose mean is 1, and ``held_out``
    (n_folds, n) the rows that each fold holds out, in order of repeats.
    ``in_order`` are the rows and folds of ``known``, the held-out rows.
    """

    codes: NDArray[np.intp]
    weight: NDArray[np.float64]
    n_classes: int
    held_out: NDArray[np.bool_]
    known: HeldOut


@dataclass(frozen=True, eq=False)
class ProbeFit:
    """The best C of a probe, its held-out loss, and its scaled logits there."""

    C: float
    loss: float
    scale: float
    logits: Array


class Standardised:
    """Units of one layer and part, standardised, in as few features as that takes.

    Samples are divided by the square root of the number of units, so that their mean
    squared length is 1 whatever the model. Where there are fewer samples than units,
    the features are the rows of the Cholesky factor of the samples' Gram matrix: they
    have the same inner products, and thus the same regressions.
    """

    def __init__(self, samples: Array, weight: Array) -> None:
        units = samples.astype(np.float64)
        self.mean = weight @ units / weight.sum()
        units -= self.mean
        deviation = np.sqrt(weight @ units**2 / weight.sum())
        # What float32 rounds away is no deviation.
        deviation[deviation <= 1e-6 * np.abs(self.mean)] = 1.0
        deviation[deviation == 0] = 1.0
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
        """Turn coefficients of features and intercept into those of the raw units.

        From (n_features + 1, n_logits) to (n_logits, n_units) and (n_logits,).
        """
        slopes = coefficients[:-1]
        if self.factor is not None:
            slopes = self.units.T @ solve_triangular(
                self.factor, slopes, lower=True, trans="T"
            )
        slopes = (slopes.T / self.divisor).astype(np.float64)
        return slopes, coefficients[-1] - slopes @ self.mean


def choose_penalty(samples: Array, rows: Labelled, grid: list[float]) -> ProbeFit:
    """Choose the C of a probe by the log loss of rows that were held out.

    Each C is judged with the scale that its logits need: a strong penalty shrinks
    logits, which the temperature of the join undoes.
    """
    features = Standardised(samples, rows.weight).features.astype(np.float32)
    kept = rows.weight[:, None] * ~rows.held_out.T
    regressions = RidgeRegressions(features, rows.codes, rows.n_classes, kept)
    best, since_best, coefficients = None, 0, None
    for C in sorted(grid):
        coefficients = regressions.fit(1 / C, coefficients)
        logits = regressions.compute_logits(coefficients)
        logits = logits.swapaxes(0, 1)[rows.held_out].astype(np.float64)
        scale = float(rows.known.find_scales(logits))
        loss = float(rows.known.compute_loss(scale * logits))
        if best is None or loss < best.loss:
            best, since_best = ProbeFit(C, loss, scale, scale * logits), 0
        else:
            since_best += 1
            if since_best == PATIENCE:
                break
    assert best is not None
    return best


def fit_probe(samples: Array, rows: Labelled, C: float) -> tuple[Array, Array]:
    """Fit a probe to all rows; return (n_logits, n_units) and intercepts."""
    standardised = Standardised(samples, rows.weight)
    regressions = RidgeRegressions(
        standardised.features, rows.codes, rows.n_classes, rows.weight[:, None]
    )
    coefficients = regressions.fit(1 / C, tolerance=TOLERANCE)
    return standardised.express(coefficients[:, 0])
