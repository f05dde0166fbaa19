"""Activations in which a label can be read from layer 1, the residual stream alone."""

import numpy as np

RNG = np.random.default_rng(0)
N = 120
Y = np.arange(N) % 2
GROUPS = np.arange(N) // 6
X = RNG.normal(size=(N, 3, 2, 8)).astype(np.float32)
X[:, 1, 0, :2] += 1.5 * Y[:, None]
