"""Activations in which a label can be read."""

import numpy as np

RNG = np.random.default_rng(0)
Y = np.arange(80) % 2
X = RNG.normal(size=(80, 3, 2, 8))
X[:, 1, 0, :4] += 1.5 * Y[:, None]
