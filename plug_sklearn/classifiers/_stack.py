"""The classifier that joins a linear probe of each layer, part and pooling."""

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted

from plug_sklearn._provenance import RecordsVersions
from plug_sklearn.classifiers._data import (
    ClassWeight,
    Rows,
    compute_class_factors,
    draw_seeds,
    hold_out_rows,
    read_rows,
    read_samples,
)
from plug_sklearn.classifiers._geometry import read_geometry
from plug_sklearn.classifiers._join import (
    TEMPERATURE_DEVIATION,
    HeldOut,
    weigh_probes,
)
from plug_sklearn.classifiers._probe_fits import Labelled, choose_penalty, fit_probe
from plug_sklearn.classifiers._ridge import make_targets

#: Values of C that are tried unless others are given, smallest first.
DEFAULT_CS = (0.1, 0.4, 1.6, 6.4, 25.6, 102.4)
#: C where no rows are held out.
UNTUNED_C = 1.6
#: Rows whose logits are computed at once.
ROWS_AT_ONCE = 512


class PlugStackClassifier(RecordsVersions, ClassifierMixin, BaseEstimator):
    """Join of linear probes, one for each layer and each part or pooling.

    Parameters
    ----------
    n_layers : int, default=None

    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_layers": [Interval(Integral, 1, None, closed="left"), None],
        "n_parts": [Interval(Integral, 1, None, closed="left"), None],
        "Cs": ["array-like", None],
        "n_folds": [Interval(Integral, 2, None, closed="left")],
        "n_repeats": [Interval(Integral, 1, None, closed="left")],
        "join_rate": [Interval(Real, 0, None, closed="left")],
        "class_weight": [dict, str, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        n_layers: int | None = None,
        n_parts: int | None = None,
        Cs: Sequence[float] | None = None,
        n_folds: int = 5,
        n_repeats: int = 2,
        join_rate: float = 0.3,
        class_weight: ClassWeight = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_layers = n_layers
        self.n_parts = n_parts
        self.Cs = Cs
        self.n_folds = n_folds
        self.n_repeats = n_repeats
        self.join_rate = join_rate
        self.class_weight = class_weight
        self.random_state = random_state

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        self._validate_params()
        grid = self._read_grid()
        seed, _ = draw_seeds(self.random_state)
        rows = read_rows(self, X, y, sample_weight, groups)
        owner = type(self).__name__
        n_layers, n_parts, hidden_size = read_geometry(
            self.input_shape_, self.n_layers, self.n_parts, owner
        )
        factors = compute_class_factors(self.class_weight, self.classes_, rows, owner)
        labelled = self._hold_out(rows, factors, seed)
        samples = rows.X.reshape(-1, n_layers, n_parts, hidden_size)
        places = slice(None) if rows.places is None else rows.places
        self._choose(samples, places, labelled, grid)
        fits = [
            fit_probe(samples[:, layer, part][places], labelled, C)
            for (layer, part), C in zip(
                self._positions, self.C_[tuple(self._positions.T)], strict=True
            )
        ]
        factors = self._factors[tuple(self._positions.T)]
        self._coefficients = factors[:, None, None] * np.stack([w for w, _ in fits])
        self.intercept_ = factors @ np.stack([b for _, b in fits])
        del self._factors
        return self

    def _choose(self, samples, places, labelled, grid):
        shape = samples.shape[1:3]
        if labelled.known is None:
            self.C_ = np.full(shape, UNTUNED_C)
            self.weights_ = np.full(shape, 1 / (shape[0] * shape[1]))
            self._factors = self.weights_
            self.temperature_ = 1.0
        else:
            fits = [choose_penalty(samples[:, l, p][places], labelled, grid) for l, p in np.ndindex(shape)]
            losses = np.array([f.loss for f in fits])
            n = labelled.known.weight.sum()
            w = weigh_probes(losses, n, self.join_rate)
            logits = np.einsum("k,kmq->mq", w, np.stack([f.logits for f in fits]))
            s = labelled.known.find_scales(logits, TEMPERATURE_DEVIATION)
            self.temperature_ = float(1 / s)
            self.weights_ = w.reshape(shape)
            self.C_ = np.array([f.C for f in fits]).reshape(shape)
            self.oof_log_loss_ = losses.reshape(shape)
            self._factors = self.weights_ * np.array([f.scale for f in fits]).reshape(shape) * s
        self._positions = np.argwhere(self.weights_)

    def _read_grid(self) -> list[float]:
        if self.Cs is None:
            return list(DEFAULT_CS)
        return sorted(float(C) for C in self.Cs)

    def _hold_out(self, rows: Rows, factors: NDArray[np.float64], seed: int) -> Labelled:
        weight = rows.weight * factors[rows.codes]
        weight = weight * len(weight) / weight.sum()
        seeds = np.random.SeedSequence(seed).generate_state(self.n_repeats)
        held = [hold_out_rows(rows, 1 / self.n_folds, int(s), self.n_folds) for s in seeds]
        held = [h.held_out for h in held if h is not None]
        known = None
        if held:
            held = np.concatenate(held)
            _, of_row = np.nonzero(held)
            times = held.sum(axis=0)
            known = HeldOut(make_targets(rows.codes, len(self.classes_))[of_row], (weight/np.maximum(times,1))[of_row])
        return Labelled(rows.codes, weight, len(self.classes_), held, known)

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        logits = self._compute_logits(X)
        return logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        logits = self._compute_logits(X)
        if len(self.classes_) == 2:
            logits = np.hstack([-logits, logits])
            return expit(logits)
        return softmax(logits, axis=1)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def _compute_logits(self, X: ArrayLike) -> NDArray[np.float64]:
        check_is_fitted(self, "intercept_")
        samples = read_samples(self, X)
        n_layers, n_parts = self.weights_.shape
        samples = samples.reshape(len(samples), n_layers, n_parts, -1)
        n_logits = len(self.intercept_)
        matrix = self._coefficients.swapaxes(0, 1).reshape(n_logits, -1).T
        logits = np.empty((len(samples), n_logits))
        for start in range(0, len(samples), ROWS_AT_ONCE):
            chosen = samples[start : start + ROWS_AT_ONCE][
                :, self._positions[:, 0], self._positions[:, 1]
            ]
            logits[start : start + ROWS_AT_ONCE] = (
                chosen.reshape(len(chosen), -1).astype(np.float64) @ matrix
            )
        return logits + self.intercept_

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags
