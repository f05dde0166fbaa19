"""Features → the few directions in which they vary most."""

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.extmath import randomized_svd


def learn_basis(
    X: NDArray[np.float32], weight: NDArray[np.float32], n_kept: int, seed: int
) -> NDArray[np.float32]:
    """Learn the principal directions of standardised features.

    Parameters
    ----------
    X : ndarray of shape (n, n_features), float32
        Training rows, of mean 0.
    weight : ndarray of shape (n,)
        Their weights, not all 0.
    n_kept : int
        Directions, at most n and ``n_features``.
    seed : int
        What the search starts from.

    Returns
    -------
    ndarray of shape (n_features, n_kept), float32
        Directions in columns, the one of the largest variance first, of a common length
        at which the variances of ``X`` along them average 1.

    References
    ----------
    Halko, Martinsson and Tropp, "Finding structure with randomness", 2011.
    """
    shares = weight / weight.sum()
    rows = X * np.sqrt(shares)[:, None]
    _, deviations, directions = randomized_svd(rows, n_kept, random_state=seed)
    typical = np.sqrt(np.square(deviations).mean())
    basis: NDArray[np.float32] = (directions.T / max(typical, 1e-30)).astype(np.float32)
    return basis
