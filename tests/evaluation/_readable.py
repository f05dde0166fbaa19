"""Activations in which a label can be read from layer 1, the residual stream alone."""

from typing import Any, Self

import numpy as np
from sklearn.linear_model import LogisticRegression

from plug_sklearn import PlugMLPClassifier

RNG = np.random.default_rng(0)
N = 120
Y = np.arange(N) % 2
GROUPS = np.arange(N) // 6
X = RNG.normal(size=(N, 3, 2, 8)).astype(np.float32)
X[:, 1, 0, :2] += 1.5 * Y[:, None]
FIRST, ROW_7 = X[[0, 7], 1, 0, 0]


class Fastidious(LogisticRegression):
    """Cannot be fitted on the first row."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> "Fastidious":
        if X[0, 0] == FIRST:
            raise ValueError("not on the first row")
        return super().fit(X, y)


class FragileMLP(PlugMLPClassifier):
    """A network that cannot be fitted where row 7 is missing."""

    def fit(self, X: Any, y: Any, **params: Any) -> Self:  # noqa: ANN401
        if ROW_7 not in X[:, 0]:
            self.classes_ = np.unique(y)
            raise RuntimeError("out of memory")
        return super().fit(X, y, **params)


FRAGILE_MLP = FragileMLP(max_epochs=2, random_state=0, device="cpu")
