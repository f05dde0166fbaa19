"""Ridge logistic regressions on the same features, with different row weights."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, get_blas_funcs
from scipy.special import expit, log_softmax, softmax

Array = NDArray[Any]
#: Penalty of the intercept. It is so low that it only matters if all rows with weight
#: have one class: it then keeps the intercept finite.
INTERCEPT_PENALTY = 1e-4
MOST_NEWTON_STEPS = 50
MOST_CONJUGATE_STEPS = 50
MOST_HALVINGS = 20


class RidgeRegressions:
    """Logistic regressions that share features and labels, and differ in row weights.

    Each minimises the weighted sum of its log losses plus ``penalty / 2`` times the
    squared length of its coefficients. With two classes there is one logit; with more,
    one for each class (multinomial). All are fitted together by Newton's method (Lin,
    Weng and Keerthi, "Trust region Newton method for large-scale logistic regression",
    2008). Its linear systems are solved by conjugate gradients. The preconditioner is
    one Cholesky factor for all regressions, that of an upper bound of their Hessians
    (Böhning, "Multinomial logistic regression algorithm", 1992).

    ``features`` (n, n_features) have the dtype of the computation. ``codes`` (n,) are
    classes, and ``row_weights`` have the shape (n, n_regressions).
    """

    def __init__(
        self, features: Array, codes: Array, n_classes: int, row_weights: Array
    ) -> None:
        dtype = features.dtype
        ones = np.ones((len(features), 1), dtype)
        self.features = np.hstack([features, ones])
        self.n_logits = count_logits(n_classes)
        self.targets = make_targets(codes, n_classes)[:, None].astype(dtype)
        self.row_weights = row_weights[:, :, None].astype(dtype)
        bound = np.sqrt(0.25 * row_weights.mean(axis=1))[:, None].astype(dtype)
        weighted = self.features * bound
        # Only the lower triangle is computed, because nothing reads the other.
        self.gram = get_blas_funcs("syrk", (weighted,))(1.0, weighted.T, lower=True)

    def fit(
        self, penalty: float, start: Array | None = None, tolerance: float = 1e-2
    ) -> Array:
        """Fit all regressions.

        Returns their coefficients, of shape (n_features + 1, n_regressions, n_logits);
        the last is the intercept. A regression is done when the norm of its gradient is
        ``tolerance`` times the norm at zero. ``start`` holds coefficients to begin at.
        """
        n_regressions = self.row_weights.shape[1]
        shape = (self.features.shape[1], n_regressions, self.n_logits)
        penalties = np.full((shape[0], 1, 1), penalty, self.features.dtype)
        penalties[-1] = INTERCEPT_PENALTY
        factor = self._factorise(penalties)
        coefficients = np.zeros(shape, self.features.dtype)
        logits = self.compute_logits(coefficients)
        first = self._compute_gradient(coefficients, logits, penalties)
        first_size = _measure(first, _solve(factor, first))
        if start is not None:
            coefficients += start
            logits = self.compute_logits(coefficients)
        active = np.arange(n_regressions)
        for _ in range(MOST_NEWTON_STEPS):
            own, own_logits = coefficients[:, active], logits[:, active]
            gradient = self._compute_gradient(own, own_logits, penalties, active)
            solved = _solve(factor, gradient)
            size = _measure(gradient, solved) / first_size[active]
            is_open = size > tolerance**2
            if not is_open.any():
                break
            active, size = active[is_open], size[is_open]
            # Far from the solution, approximate steps are enough.
            goals = np.maximum(np.minimum(0.01, size), 0.1 * tolerance**2 / size)
            own, own_logits = own[:, is_open], own_logits[:, is_open]
            opposite = -gradient[:, is_open], -solved[:, is_open]
            step = self._find_step(
                own_logits, *opposite, penalties, factor, active, goals
            )
            found = self._move(own, own_logits, step, penalties, active)
            coefficients[:, active], logits[:, active] = found
        return coefficients

    def compute_logits(self, coefficients: Array) -> Array:
        """Compute logits of the rows, of shape (n, n_regressions, n_logits)."""
        return _multiply(self.features, coefficients)

    def _factorise(self, penalties: Array) -> Any:  # noqa: ANN401 - scipy's pair
        hessian = self.gram.copy()
        diagonal = np.arange(len(hessian))
        hessian[diagonal, diagonal] += penalties[:, 0, 0]
        return cho_factor(hessian, lower=True, overwrite_a=True, check_finite=False)

    def _compute_gradient(
        self,
        coefficients: Array,
        logits: Array,
        penalties: Array,
        active: Array | None = None,
    ) -> Array:
        errors = predict(logits) - self.targets
        errors *= self.row_weights[:, slice(None) if active is None else active]
        gradient: Array = _multiply(self.features.T, errors) + penalties * coefficients
        return gradient

    def _find_step(
        self,
        logits: Array,
        residual: Array,
        direction: Array,
        penalties: Array,
        factor: Any,  # noqa: ANN401 - as above
        active: Array,
        goals: Array,
    ) -> Array:
        """Solve for Newton's step by preconditioned conjugate gradients.

        Starts at the negative gradient, and at the same solved by ``factor``. Both are
        overwritten.
        """
        tiny = np.finfo(residual.dtype).tiny
        probabilities = predict(logits)
        row_weights = self.row_weights[:, active]
        step = np.zeros_like(residual)
        size = (residual * direction).sum(axis=(0, 2))
        goals = goals * size
        live = np.arange(len(active))
        for _ in range(MOST_CONJUGATE_STEPS):
            ahead = direction[:, live]
            change = _weigh_by_hessian(
                probabilities[:, live], _multiply(self.features, ahead)
            )
            change *= row_weights[:, live]
            bent = _multiply(self.features.T, change) + penalties * ahead
            length = size[live] / np.maximum((ahead * bent).sum(axis=(0, 2)), tiny)
            step[:, live] += length[:, None] * ahead
            residual[:, live] -= length[:, None] * bent
            preconditioned = _solve(factor, residual[:, live])
            new = (residual[:, live] * preconditioned).sum(axis=(0, 2))
            ratio = (new / np.maximum(size[live], tiny))[:, None]
            direction[:, live] = preconditioned + ratio * ahead
            size[live] = new
            live = live[new > goals[live]]
            if not len(live):
                break
        return step

    def _move(
        self,
        coefficients: Array,
        logits: Array,
        step: Array,
        penalties: Array,
        active: Array,
    ) -> tuple[Array, Array]:
        """Make steps, each halved until it lowers the objective; update logits."""
        change = self.compute_logits(step)
        before = self._compute_objective(coefficients, logits, penalties, active)
        slack = np.finfo(step.dtype).eps * np.abs(before)
        lengths = np.ones((len(active), 1), step.dtype)
        waiting = np.arange(len(active))
        for _ in range(MOST_HALVINGS):
            after = self._compute_objective(
                (coefficients + lengths * step)[:, waiting],
                (logits + lengths * change)[:, waiting],
                penalties,
                active[waiting],
            )
            waiting = waiting[~(after <= (before + slack)[waiting])]
            if not len(waiting):
                break
            lengths[waiting] /= 2
        return coefficients + lengths * step, logits + lengths * change

    def _compute_objective(
        self, coefficients: Array, logits: Array, penalties: Array, active: Array
    ) -> Array:
        losses = compute_losses(logits, self.targets)
        weighted = losses * self.row_weights[:, active, 0]
        squares = penalties * coefficients**2
        objective: Array = weighted.sum(axis=0, dtype=np.float64) + 0.5 * squares.sum(
            axis=(0, 2), dtype=np.float64
        )
        return objective


def count_logits(n_classes: int) -> int:
    """Count the logits of a sample: one if there are two classes."""
    return 1 if n_classes == 2 else n_classes


def make_targets(codes: Array, n_classes: int) -> Array:
    """Turn classes (n,) into one-hot labels (n, n_logits)."""
    if n_classes == 2:
        return np.asarray((codes == 1)[:, None], dtype=np.float64)
    return np.asarray(np.eye(n_classes)[codes])


def predict(logits: Array) -> Array:
    """Turn logits (..., n_logits) into probabilities of the same shape."""
    if logits.shape[-1] == 1:
        return np.asarray(expit(logits))
    return np.asarray(softmax(logits, axis=-1))


def compute_losses(logits: Array, targets: Array) -> Array:
    """Compute log losses (...) of logits (..., n_logits)."""
    if logits.shape[-1] == 1:
        losses = np.logaddexp(0, logits) - targets * logits
        return np.asarray(losses[..., 0])
    return np.asarray(-(targets * log_softmax(logits, axis=-1)).sum(axis=-1))


def _weigh_by_hessian(probabilities: Array, change: Array) -> Array:
    """Multiply changes of logits by the Hessian of the loss."""
    weighed = probabilities * change
    return np.asarray(weighed - probabilities * weighed.sum(axis=-1, keepdims=True))


def _multiply(matrix: Array, stacked: Array) -> Array:
    flat = matrix @ stacked.reshape(len(stacked), -1)
    return np.asarray(flat).reshape(len(matrix), *stacked.shape[1:])


def _measure(gradient: Array, solved: Array) -> Array:
    """Compute squared norms of gradients by the inverse of the Hessian's bound."""
    squared = (gradient * solved).sum(axis=(0, 2))
    return np.asarray(np.maximum(squared, np.finfo(squared.dtype).tiny))


def _solve(factor: Any, stacked: Array) -> Array:  # noqa: ANN401 - scipy's pair
    flat = cho_solve(factor, stacked.reshape(len(stacked), -1), check_finite=False)
    return np.asarray(flat).reshape(stacked.shape)
