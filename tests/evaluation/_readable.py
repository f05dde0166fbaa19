"""Activations in which a label can be read from layer 1, the residual stream alone."""

import numpy as np
from sklearn.linear_model import LogisticRegression

RNG = np.random.default_rng(0)
N = 120
Y = np.arange(N) % 2
GROUPS = np.arange(N) // 6
X = RNG.normal(size=(N, 3, 2, 8)).astype(np.float32)
X[:, 1, 0, :2] += 1.5 * Y[:, None]
FIRST = X[0, 1, 0, 0]


class Fastidious(LogisticRegression):
    """Cannot be fitted on the first row."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> "Fastidious":
        if X[0, 0] == FIRST:
            raise ValueError("not on the first row")
        return super().fit(X, y)
